"""Containers for tests: images that scripts/build-images made, each run as a host of its own, in new namespaces for mounts,
processes and network, as the image's user, without any capability, on a root file system that cannot be written to.

    with Network({"name": ["10.77.0.2"]}) as network:
        server = network.start(Image("cache"), "10.77.0.2", arguments=["--insecure"], mounts={folder: ("/data", "rw")})

Needs root and iproute2. A `Network` is a bridge in a namespace of its own: its hosts have addresses 10.77.0.2 to .254 and a DNS
server at .1, and reach nothing else. Everything ends with it, and, after `enter_namespaces`, with the process, however that ends.
"""

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ARCHIVES = os.path.join(SOURCE, "build/images")
LIMIT_S = 300
GATEWAY = "10.77.0.1"

# In new namespaces for mounts and processes: $1 is the root, $2 what to mount as `FROM TO ro|rw` lines, then the command.
START = """
set -eu
root=$1 mounts=$2
shift 2
mount --bind "$root" "$root"
cd "$root"
mount -t tmpfs -o mode=755,size=64k tmpfs dev
for device in null zero random urandom; do : >dev/$device; mount --bind /dev/$device dev/$device; done
printf '%s' "$mounts" | while read -r from to how; do
  mount --bind "$from" "$root$to"
  mount -o "remount,bind,$how,nosuid,nodev" "$root$to"
done
mount -t proc -o nosuid,nodev,noexec proc proc
mount -o remount,bind,ro,nosuid,nodev "$root"
cd /
exec setpriv --no-new-privs --bounding-set=-all,+sys_chroot,+setuid,+setgid -- "$@"
"""


def run(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout}{done.stderr}")
    return done.stdout


def missing():
    """Why containers cannot be had here, or None."""
    if os.geteuid() != 0:
        return "needs root"
    for tool in ("ip", "setpriv", "unshare"):
        if shutil.which(tool) is None:
            return f"{tool} is not installed: scripts/install-deps --for images"
    probe = subprocess.run(["unshare", "--mount", "--pid", "--net", "--fork", "ip", "link", "add", "type", "bridge"],
                           capture_output=True, text=True, check=False)
    return None if probe.returncode == 0 else f"no namespaces, or no bridges in them: {probe.stderr.strip()}"


def enter_namespaces():
    """Starts this script again as the first process of new namespaces. With it end the processes, mounts and hosts that it made."""
    if os.getpid() == 1:
        return
    os.execvp("unshare", ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c",
                          'mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns && exec "$@"', "sh", sys.executable, *sys.argv])


class Image:
    """An image of build/images, unpacked into a temporary folder. What a runtime mounts has a place in it."""

    def __init__(self, name):
        self.folder = tempfile.TemporaryDirectory(prefix="tidepool-test-")
        self.root = os.path.join(self.folder.name, "root")
        os.mkdir(self.root)
        with tarfile.open(os.path.join(ARCHIVES, f"{name}.tar")) as archive:
            [manifest] = json.load(archive.extractfile("manifest.json"))
            config = json.load(archive.extractfile(manifest["Config"]))["config"]
            for layer in manifest["Layers"]:
                # A layer may be stored once for several images, as a link.
                member = archive.getmember(layer)
                if member.issym():
                    member = archive.getmember(os.path.normpath(os.path.join(os.path.dirname(layer), member.linkname)))
                with tarfile.open(fileobj=archive.extractfile(member)) as files:
                    if any(os.path.basename(file).startswith(".wh.") for file in files.getnames()):
                        raise RuntimeError(f"{name}: a layer that removes files cannot be read here")
                    files.extractall(self.root)
        self.user = config["User"]
        self.entry_point = config["Entrypoint"]
        self.environment = config["Env"]
        self.health_check = config.get("Healthcheck", {}).get("Test", ["NONE"])[1:]

    def files(self):
        """path below the root -> its os.stat_result, links not followed."""
        found = {}
        for folder, folders, names in os.walk(self.root):
            for name in folders + names:
                path = os.path.join(folder, name)
                found[os.path.relpath(path, self.root)] = os.lstat(path)
        return found

    def mount_point(self, path):
        full = self.root + path
        if not os.path.exists(full):
            os.makedirs(os.path.dirname(full), exist_ok=True)
            if os.path.splitext(path)[1] or path == "/etc/hosts":
                open(full, "wb").close()
            else:
                os.mkdir(full)

    def remove(self):
        self.folder.cleanup()


class Container:
    """A program of an image, in a host of a network."""

    def __init__(self, image, namespace, command, mounts, stdin=None):
        for _, (to, _) in mounts.items():
            image.mount_point(to)
        lines = "".join(f"{source} {to} {how}\n" for source, (to, how) in mounts.items())
        self.output = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.errors = tempfile.TemporaryFile("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", START,
             "sh", image.root, lines, "env", "-i", *image.environment, "/usr/sbin/chroot", f"--userspec={image.user}",
             "--groups=", image.root, *command],
            stdin=stdin or subprocess.DEVNULL, stdout=self.output, stderr=self.errors)

    def said(self):
        """stdout and stderr until now."""
        texts = []
        for file in (self.output, self.errors):
            texts.append(os.pread(file.fileno(), 1 << 24, 0).decode())
        return tuple(texts)

    def pid(self):
        """Of the program, as this side sees it; in its container it is 1."""
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="utf-8") as file:
            [child] = file.read().split()
        return int(child)

    def wait_for_output(self, text):
        give_up = time.monotonic() + LIMIT_S
        while text not in self.said()[0]:
            if self.process.poll() is not None or time.monotonic() > give_up:
                raise RuntimeError(f"no '{text}' in the output:\n{''.join(self.said())}")
            time.sleep(0.01)

    def terminate(self):
        """SIGTERM to the program, as a runtime sends it."""
        os.kill(self.pid(), signal.SIGTERM)

    def end(self):
        if self.process.poll() is None:
            os.kill(self.pid(), signal.SIGKILL)  # its first process, and so all of them
        self.process.wait(LIMIT_S)
        self.output.close()
        self.errors.close()


class Network:
    """names: host name -> addresses, of the DNS server."""

    def __init__(self, names):
        self.names = names
        self.prefix = f"tp{os.getpid()}"
        self.namespaces = []
        self.containers = []
        self.folder = tempfile.TemporaryDirectory(prefix="tidepool-test-")
        self.resolv_conf = os.path.join(self.folder.name, "resolv.conf")
        self.dns = None

    def __enter__(self):
        try:
            self.switch = self._add_namespace("switch")
            run("ip", "-n", self.switch, "link", "add", "bridge", "type", "bridge")
            run("ip", "-n", self.switch, "address", "add", f"{GATEWAY}/24", "dev", "bridge")
            run("ip", "-n", self.switch, "link", "set", "bridge", "up")
            with open(self.resolv_conf, "w", encoding="utf-8") as file:
                file.write(f"nameserver {GATEWAY}\n")
            self.dns = subprocess.Popen(["ip", "netns", "exec", self.switch, sys.executable, __file__, json.dumps(self.names)],
                                        stdout=subprocess.PIPE)
            if self.dns.stdout.readline() != b"answers\n":
                raise RuntimeError("the DNS server did not start")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for container in self.containers:
            container.end()
        if self.dns is not None:
            self.dns.kill()
            self.dns.wait()
            self.dns.stdout.close()
        for namespace in self.namespaces:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)
        self.folder.cleanup()

    def _add_namespace(self, name):
        namespace = f"{self.prefix}-{name}"
        run("ip", "netns", "add", namespace)
        self.namespaces.append(namespace)
        run("ip", "-n", namespace, "link", "set", "lo", "up")
        return namespace

    def _host(self, address):
        last = address.rpartition(".")[2]
        namespace = f"{self.prefix}-{last}"
        if namespace not in self.namespaces:
            self._add_namespace(last)
            run("ip", "-n", self.switch, "link", "add", f"port{last}", "type", "veth", "peer", "name", "eth0", "netns", namespace)
            run("ip", "-n", self.switch, "link", "set", f"port{last}", "master", "bridge", "up")
            run("ip", "-n", namespace, "address", "add", f"{address}/24", "dev", "eth0")
            run("ip", "-n", namespace, "link", "set", "eth0", "up")
        return namespace

    def start(self, image, address, arguments=(), command=None, mounts=None, stdin=None):
        """Starts the image's entry point with `arguments`, or `command`. mounts: path here -> (path there, "ro" or "rw")."""
        everything = {self.resolv_conf: ("/etc/resolv.conf", "ro"), **(mounts or {})}
        container = Container(image, self._host(address), list(command or image.entry_point) + list(arguments), everything, stdin)
        self.containers.append(container)
        return container

    def run(self, *arguments, **options):
        """Runs a program to its end: exit code, stdout, stderr."""
        container = self.start(*arguments, **options)
        code = container.process.wait(LIMIT_S)
        return (code, *container.said())


def answer_dns(names):
    """Serves A records of `names`; other questions about them have no answer, other names do not exist."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((GATEWAY, 53))
    print("answers", flush=True)
    while True:
        query, who = server.recvfrom(512)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode())
            at += 1 + query[at]
        question = query[12:at + 5]
        addresses = names.get(".".join(labels).lower())
        records = [b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + socket.inet_aton(address)
                   for address in addresses or [] if question[-4:] == b"\0\1\0\1"]
        flags = 0x8180 if addresses is not None else 0x8183
        server.sendto(query[:2] + struct.pack("!HHHHH", flags, 1, len(records), 0, 0) + question + b"".join(records), who)


if __name__ == "__main__":
    answer_dns(json.loads(sys.argv[1]))
