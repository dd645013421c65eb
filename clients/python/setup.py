"""Generates tidepool_client.v1, the messages and stubs of proto/tidepool/v1, while the package is built."""

import importlib.metadata
import os
import re
import shutil

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = os.path.dirname(os.path.abspath(__file__))
PROTOS = ("common", "cache_admin", "generation")


def proto_folder():
    """In a source distribution the protos are beside this file, in the repository at its top."""
    folders = (os.path.join(HERE, "proto"), os.path.join(HERE, "..", "..", "proto"))
    found = next((folder for folder in folders if os.path.isdir(folder)), None)
    if found is None:
        raise FileNotFoundError(f"the folder proto of Tidepool is not at {folders[1]}: install from a whole checkout")
    return found


def generate(package):
    """Writes the subpackage v1 into the folder `package`."""
    import grpc_tools
    from grpc_tools import protoc

    out = os.path.join(package, "v1")
    scratch = os.path.join(out, "scratch")
    os.makedirs(scratch, exist_ok=True)
    protos = [f"tidepool/v1/{name}.proto" for name in PROTOS]
    well_known = os.path.join(os.path.dirname(grpc_tools.__file__), "_proto")
    arguments = ["protoc", f"-I{proto_folder()}", f"-I{well_known}", f"--python_out={scratch}",
                 f"--pyi_out={scratch}", f"--grpc_python_out={scratch}", *protos]
    if protoc.main(arguments) != 0:
        raise RuntimeError(f"protoc failed: {' '.join(arguments)}")
    generated = os.path.join(scratch, "tidepool", "v1")
    names = []
    for name in sorted(os.listdir(generated)):
        with open(os.path.join(generated, name), encoding="utf-8") as file:
            text = file.read()
        # protoc names modules by the protos' paths; here they live inside the package.
        text = re.sub(r"^from tidepool\.v1 import", "from tidepool_client.v1 import", text, flags=re.MULTILINE)
        with open(os.path.join(out, name), "w", encoding="utf-8") as file:
            file.write(text)
        if name.endswith("_pb2.py"):
            names.append(name.removesuffix(".py"))
    shutil.rmtree(scratch)
    with open(os.path.join(out, "__init__.py"), "w", encoding="utf-8") as file:
        file.write('"""The protocol\'s messages, generated from proto/tidepool/v1."""\n\n')
        file.writelines(f"from tidepool_client.v1.{name} import *  # noqa: F401,F403\n" for name in names)


class BuildPy(build_py):
    def run(self):
        super().run()
        generate(os.path.join(HERE if self.editable_mode else self.build_lib, "tidepool_client"))


class Sdist(sdist):
    def make_release_tree(self, base_dir, files):
        super().make_release_tree(base_dir, files)
        to = os.path.join(base_dir, "proto", "tidepool", "v1")
        os.makedirs(to, exist_ok=True)
        for name in PROTOS:
            shutil.copy(os.path.join(proto_folder(), "tidepool", "v1", f"{name}.proto"), to)


# Generated code runs with the versions of its generator or later ones.
setup(
    cmdclass={"build_py": BuildPy, "sdist": Sdist},
    install_requires=[f"grpcio>={importlib.metadata.version('grpcio-tools')}",
                      f"protobuf>={importlib.metadata.version('protobuf')}"])
