// What an instance shows when it attaches: its contracts as it was built with them.
import { IMAGE } from "./mesh.mjs";

// Serialized FileDescriptorSet of the files of these contracts with their imports, cut out of the image byte by byte, so that options stay.
export function descriptorSet(names) {
  const files = new Map(fieldsOf(IMAGE).map(({ bytes, whole }) => {
    const fields = fieldsOf(bytes);
    const strings = (number) => fields.filter((field) => field.number === number).map((field) => field.bytes.toString());
    const declared = fields.filter((field) => field.number === 6).map((field) => `${strings(2)[0]}.${fieldsOf(field.bytes)[0].bytes}`);
    return [strings(1)[0], { whole, imports: strings(3), declared }];
  }));
  const wanted = new Set();
  const add = (name) => {
    if (wanted.has(name)) return;
    files.get(name).imports.forEach(add);
    wanted.add(name);
  };
  for (const [name, file] of files) if (file.declared.some((contract) => names.includes(contract))) add(name);
  return Buffer.concat([...wanted].map((name) => files.get(name).whole));
}

// The length-delimited fields of one encoded message: number, content, and content with its tag.
function fieldsOf(buffer) {
  const found = [];
  for (let at = 0; at < buffer.length; ) {
    const begin = at;
    const varint = () => {
      let value = 0;
      for (let shift = 0; ; shift += 7) {
        const byte = buffer[at++];
        value += (byte & 127) * 2 ** shift;
        if (byte < 128) return value;
      }
    };
    const tag = varint();
    const length = { 0: () => (varint(), 0), 1: () => 8, 2: varint, 5: () => 4 }[tag & 7]();
    at += length;
    if ((tag & 7) === 2) found.push({ number: tag >>> 3, bytes: buffer.subarray(at - length, at), whole: buffer.subarray(begin, at) });
  }
  return found;
}
