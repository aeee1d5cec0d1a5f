"""Makes the descriptor set from which the registry builds its xDS messages, out of xds-protos kept away from .venv.

xds-protos overwrites files of googleapis-common-protos, so it is unpacked into a folder of its own and imported by a
process of its own: `python scripts/tooling/xds_descriptors.py OUT` with that folder on PYTHONPATH.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SET = "services/minhos_mesh/registry/envoy.binpb"
RECIPE = "services/minhos_mesh/registry/envoy.recipe"
REQUIREMENT = "xds-protos==1.85.0"
WHEEL_SHA256 = "e1e7bfd9936389936b2c85660d9db0dae380f12678a594b983da40dd472f1760"
ROOTS = (
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/cluster/v3/circuit_breaker.proto",
    "envoy/config/cluster/v3/outlier_detection.proto",
    "envoy/config/core/v3/health_check.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/clusters/aggregate/v3/cluster.proto",
    "envoy/extensions/filters/common/fault/v3/fault.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/load_balancing_policies/client_side_weighted_round_robin/v3/client_side_weighted_round_robin.proto",
    "envoy/extensions/load_balancing_policies/pick_first/v3/pick_first.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/load_balancing_policies/wrr_locality/v3/wrr_locality.proto",
    "envoy/service/discovery/v3/ads.proto",
    "envoy/service/discovery/v3/discovery.proto",
    "xds/data/orca/v3/orca_load_report.proto",
)


def _recipe(content: bytes) -> str:
    """Returns what the descriptor set was made of, so that a change is seen without making it again."""
    lines = [
        "# What envoy.binpb was made from. Written by scripts/generate.",
        REQUIREMENT,
        *ROOTS,
        f"sha256 {hashlib.sha256(content).hexdigest()}",
    ]
    return "\n".join(lines) + "\n"


def differences(root: Path) -> list[str]:
    """Returns one line when the committed descriptor set is absent or was made from something else."""
    made, recipe = root / SET, root / RECIPE
    if not made.is_file() or not recipe.is_file():
        return [f"missing: {SET}"]
    if recipe.read_text(encoding="utf-8") != _recipe(made.read_bytes()):
        return [f"out of date: {SET}"]
    return []


def write(root: Path) -> None:
    """Downloads the pinned xds-protos into build/xds-protos and writes the descriptor set with its recipe."""
    packages = root / "build" / REQUIREMENT.replace("==", "-")
    with tempfile.TemporaryDirectory(prefix="minhos-xds-") as name:
        if not packages.is_dir():
            wanted = Path(name, "requirements.txt")
            wanted.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
            fresh = Path(name, "packages")
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-qq",
                "--no-deps",
                "--require-hashes",
                "--only-binary=:all:",
            ]
            subprocess.run([*pip, "--target", str(fresh), "-r", str(wanted)], check=True)
            packages.parent.mkdir(exist_ok=True)
            shutil.move(fresh, packages)
        target = root / SET
        target.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONPATH": str(packages)}
        subprocess.run([sys.executable, __file__, str(target)], check=True, env=environment)
    (root / RECIPE).write_text(_recipe(target.read_bytes()), encoding="utf-8")


def collect() -> bytes:
    """Returns the serialized FileDescriptorSet of ROOTS with all imports, each file after what it imports."""
    from google.protobuf import descriptor_pb2, descriptor_pool
    from google.protobuf.descriptor import FileDescriptor

    files = descriptor_pb2.FileDescriptorSet()
    done: set[str] = set()

    def add(file: FileDescriptor) -> None:
        if file.name in done:
            return
        done.add(file.name)
        for imported in file.dependencies:
            add(imported)
        file.CopyToProto(files.file.add())

    pool = descriptor_pool.Default()
    for root in ROOTS:
        importlib.import_module(root.removesuffix(".proto").replace("/", ".") + "_pb2")
        add(pool.FindFileByName(root))
    return files.SerializeToString(deterministic=True)


if __name__ == "__main__":
    Path(sys.argv[1]).write_bytes(collect())
