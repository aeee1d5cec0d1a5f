"""Runs betterproto's plugin on our contracts alone and drops the `minhos_api/` prefix of what it writes.

The plugin's formatter takes most of its time, so the code is formatted by the pinned ruff instead, all files at once.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from betterproto.plugin import compiler
from betterproto.plugin.main import main as betterproto_main
from google.protobuf.compiler import plugin_pb2

PREFIX = "minhos_api/"
FORMAT = ["format", "--isolated", "--quiet", "--no-cache", "--line-length", "88", "--target-version", "py311"]


def narrowed(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorRequest:
    """Returns the request with our files and the well-known types only: options of others leave no trace in dataclasses."""
    kept = [file for file in request.proto_file if file.name.startswith((PREFIX, "google/protobuf/"))]
    names = [name for name in request.file_to_generate if name.startswith(PREFIX)]
    return plugin_pb2.CodeGeneratorRequest(
        file_to_generate=names, parameter=request.parameter, proto_file=kept, compiler_version=request.compiler_version
    )


def plugin() -> None:
    """Is the plugin itself, less its formatter: reads a request from standard input and writes the response."""

    def unformatted(src_contents: str, mode: object) -> str:
        del mode
        return src_contents

    vars(compiler)["black"].format_str = unformatted
    betterproto_main()


def formatted(response: plugin_pb2.CodeGeneratorResponse) -> plugin_pb2.CodeGeneratorResponse:
    """Returns the files of our packages, formatted, in a stable order, one folder further up."""
    result = plugin_pb2.CodeGeneratorResponse(supported_features=response.supported_features, error=response.error)
    with tempfile.TemporaryDirectory(prefix="minhos-dataclasses-") as folder:
        written: dict[str, Path] = {}
        for file in response.file:
            if file.name.startswith(PREFIX) and file.content:
                path = Path(folder, file.name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(file.content, encoding="utf-8")
                written[file.name.removeprefix(PREFIX)] = path
        ruff = Path(sys.executable).with_name("ruff")
        subprocess.run([ruff, *FORMAT, folder], check=True, stdout=sys.stderr)
        for name, path in sorted(written.items()):
            result.file.add(name=name, content=path.read_text(encoding="utf-8"))
    return result


def main() -> int:
    """Answers buf's request on standard input."""
    if sys.argv[1:] == ["--plugin"]:
        plugin()
        return 0
    request = narrowed(plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read()))
    inner = [sys.executable, __file__, "--plugin"]
    done = subprocess.run(inner, input=request.SerializeToString(), capture_output=True, check=False)
    if done.returncode != 0:
        sys.stderr.buffer.write(done.stderr)
        return done.returncode
    response = plugin_pb2.CodeGeneratorResponse.FromString(done.stdout)
    sys.stdout.buffer.write(formatted(response).SerializeToString())
    return 0


if __name__ == "__main__":
    sys.exit(main())
