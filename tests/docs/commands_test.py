#!/usr/bin/env python3
"""The commands of the documents: those in ```sh and indented blocks are run as they stand, in the order in which they
stand, those of each document against servers of their own; what cannot be run is listed here with the reason. Commands in running text name programs, subcommands
and flags that exist.

  commands_test.py BIN_FOLDER [arguments of unittest]

It runs in namespaces of its own, in which the default ports are free; where these cannot be had the test is skipped: exit status 77.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
import unittest

SOURCE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DOCUMENTS = ["README.md", "deploy/README.md"] + sorted(
    f"docs/{name}" for name in os.listdir(os.path.join(SOURCE, "docs")) if name.endswith(".md"))
SKIPPED = 77
LIMIT_S = 300
MODEL = "SmolLM2-135M-Instruct.Q4_1.gguf"
SERVERS = re.compile(r"(\S*/)?(tidepool-(cache|worker|http)|tidepool serve)\b")
PROGRAMS = r"(scripts/[a-z]|build/release/bin/|tidepool(-cache|-worker|-http)? +(--|[a-z])|curl |grpcurl |kubectl |helm |docker |cmake |ninja )"

CLUSTER = "needs a cluster; deploy_kubernetes_test renders what it is given"
IMAGES = "takes minutes and root; scripts/test-images builds and runs images"
BENCHMARK = "takes minutes to hours; that its flags exist is checked"
ADMIN = "needs the tenant, session or prefix that it names; e2e_admin_test has them"
# Commands that are not run -> why. A star at the end is any rest.
NOT_RUN = {
    "scripts/quickstart": "takes a bare machine; scripts/fresh-machine-test runs it there",
    "scripts/test": "runs this test; scripts/fresh-machine-test runs it on a bare machine",
    "scripts/build-images": IMAGES,
    "scripts/build-images --from-build build/release": IMAGES,
    "scripts/build-images --update-lock": IMAGES,
    "docker build -f deploy/docker/Dockerfile --target cache -t tidepool-cache:0.1.0 .": "needs a Docker engine; " + IMAGES,
    "docker load -i build/images/worker.tar": "needs a Docker engine; " + IMAGES,
    "kubectl apply -k deploy/kubernetes/overlays/cpu-demo": CLUSTER,
    "helm install tidepool deploy/helm/tidepool --namespace tidepool --create-namespace --values deploy/helm/tidepool/values-cpu-demo.yaml":
        CLUSTER,
    "grpcurl -plaintext -d '{\"text\": \"The tide\", \"stop\": {\"max_tokens\": 32}}' 127.0.0.1:7071 tidepool.v1.Generation/Generate":
        "Debian does not package grpcurl",
    "tidepool admin quota acme *": ADMIN,
    "tidepool admin pin *": ADMIN,
    "scripts/bench *": BENCHMARK,
    "scripts/chaos *": "takes minutes and root; that its flags exist is checked",
    "for R in 16 64 128; do\n  scripts/bench quality *": BENCHMARK,
    "tidepool bench quality [OPTIONS]": BENCHMARK,
    "build/release/bin/engine_bench": BENCHMARK,
    "build/release/bin/kernels_bench": BENCHMARK,
    "grpcurl -plaintext 127.0.0.1:7070 tidepool.v1.CacheAdmin/GetStats": "Debian does not package grpcurl",
}
# Commands of servers whose flags are checked (--validate-config), while they do not run -> why.
ONLY_VALIDATED = {
    "tidepool-cache --data-dir=/var/lib/tidepool --pod-name=cache-0 --peers=a:7070,b:7070,c:7070 --listen=0.0.0.0:7070 --insecure":
        "three machines; shards_test runs several pods",
    "tidepool-worker --model=model.gguf --cache=a:7070,b:7070,c:7070": "three machines; shards_test runs several pods",
    "tidepool-worker --model=model.gguf --cache=dns:///tidepool-cache.tidepool.svc:7070": "a cluster's DNS; images_test has one",
}
# What a document takes for granted, by document: servers.
GIVEN = {
    "docs/API.md": ["tidepool-cache --data-dir=/var/lib/tidepool", "tidepool-worker --model=model.gguf --cache=127.0.0.1:7070"],
    "docs/policies.md": ["tidepool serve --model=model.gguf --data-dir=data"],
}
STDIN = {"tidepool chat": "What is the sea?\n"}

binaries = ""


def read(path):
    with open(os.path.join(SOURCE, path), encoding="utf-8") as file:
        return file.read()


def blocks(document):
    """(language, text) of each fenced block; indented lines, of which one begins with a program, are an sh block, too."""
    for found in re.finditer(r"^```([^\n]*)\n(.*?)^```$|^((?:(?:    |\t)[^\n]*\n)+)", read(document), re.M | re.S):
        if not found[3]:
            yield found[1], found[2]
        elif re.search(rf"^\s+{PROGRAMS}", found[3], re.M):
            yield "sh", textwrap.dedent(found[3])


def whole(command):
    return subprocess.run(["bash", "-n"], input=command, capture_output=True, text=True, check=False).returncode == 0


def commands(text):
    """The commands of a block, without comments, each in one line where it can be."""
    pending = ""
    for line in text.splitlines():
        pending += line
        if pending.endswith("\\"):
            pending = pending[:-1]
            continue
        if not whole(pending):
            pending += "\n"
            continue
        comments = [found.start() for found in re.finditer(r"(^|\s+)#", pending) if whole(pending[:found.start()])]
        command = pending[:comments[0]] if comments else pending
        pending = ""
        if command.strip():
            yield command if "\n" in command else re.sub(r"(?<=\S)  +", " ", command.strip())
    if pending:
        raise ValueError(f"a command has no end: {pending}")


def all_commands():
    return [(document, command) for document in DOCUMENTS for language, text in blocks(document) if language == "sh"
            for command in commands(text)]


def enter_namespaces():
    """Starts this script again in new namespaces: for mounts (own /etc/hosts and /var/lib), processes, and network (own ports)."""
    if os.getpid() == 1:
        return
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    unshare = ["unshare", *user, "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    start = 'ip link set lo up && mount -t tmpfs tmpfs /var/lib && exec "$@"'
    probe = subprocess.run([*unshare, "sh", "-c", start, "sh", "true"], capture_output=True, text=True, check=False)
    if probe.returncode != 0:
        print(f"commands_test: skipped: no namespaces here: {probe.stderr.strip()}")
        sys.exit(SKIPPED)
    os.execvp("unshare", [*unshare, "sh", "-c", start, "sh", sys.executable, *sys.argv])


def why_not(command):
    """The entry of NOT_RUN for a command, or None."""
    return next((entry for entry in NOT_RUN
                 if command == entry or (entry.endswith("*") and command.startswith(entry[:-1]))), None)


class Terminal:
    """A folder that looks like a clone with a build in it, in which the commands of one document run."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory(prefix="tidepool-test-")
        home = self.folder.name
        os.makedirs(os.path.join(home, "build/release"))
        os.symlink(binaries, os.path.join(home, "build/release/bin"))
        models = os.environ.get("TIDEPOOL_MODEL_DIR") or os.path.join(SOURCE, "models")
        if not os.path.exists(os.path.join(models, MODEL)):
            sys.exit(f"{models}/{MODEL} is missing: run scripts/fetch-models")
        os.symlink(models, os.path.join(home, "models"))
        os.symlink(os.path.join(models, MODEL), os.path.join(home, "model.gguf"))
        for name in ("scripts", "deploy", "LICENSE"):
            os.symlink(os.path.join(SOURCE, name), os.path.join(home, name))
        # What the documents speak of.
        self.write("book.txt", read("LICENSE")[:3000])
        self.write("token", "a-token-of-the-test")
        digest = hashlib.sha256(b"a-token-of-the-test").hexdigest()
        self.write("access", f"token {digest} acme user\ncert worker * worker\n")
        self.write("salt", "some random bytes")
        self.write(".curlrc", "fail-with-body\nsilent\nshow-error\n")
        self.environment = dict(os.environ, HOME=home, PATH=f"{binaries}:{os.environ['PATH']}")
        self.servers = []

    def write(self, name, text):
        with open(os.path.join(self.folder.name, name), "w", encoding="utf-8") as file:
            file.write(text)

    def start(self, command, wait):
        """Starts a server; `wait`: until it listens."""
        log = open(os.path.join(self.folder.name, f"server-{len(self.servers)}.log"), "w+", encoding="utf-8")
        process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=self.folder.name, env=self.environment,
                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.servers.append((process, log))
        give_up = time.monotonic() + LIMIT_S
        while wait and "listening on" not in self.said(log):
            if process.poll() is not None or time.monotonic() > give_up:
                raise AssertionError(f"{command}: does not listen:\n{self.said(log)}")
            time.sleep(0.01)

    @staticmethod
    def said(log):
        return os.pread(log.fileno(), 1 << 20, 0).decode()

    def run(self, command):
        stdin = next((text for program, text in STDIN.items() if program in command), "")
        done = subprocess.run(["bash", "-c", command], cwd=self.folder.name, env=self.environment, input=stdin,
                              capture_output=True, text=True, timeout=LIMIT_S, check=False)
        if done.returncode != 0:
            logs = "\n".join(self.said(log) for _, log in self.servers)
            raise AssertionError(f"{command}: ended with {done.returncode}:\n{done.stdout}{done.stderr}\nservers:\n{logs}")
        return done.stdout

    def end(self, keep=0):
        """Ends the servers but the first `keep`."""
        while len(self.servers) > keep:
            process, log = self.servers.pop()
            process.terminate()
            process.wait(LIMIT_S)
            log.close()


class CommandsTest(unittest.TestCase):
    def test_commands_stand_in_sh_blocks(self):
        for document in DOCUMENTS:
            for language, text in blocks(document):
                if language != "sh":
                    self.assertNotRegex(text, re.compile(rf"^(\$ )?{PROGRAMS}", re.M), f"{document}: a command outside an ```sh block")

    def test_every_command_is_run_or_says_why_not(self):
        there = {command for _, command in all_commands()}
        for entry in {**NOT_RUN, **ONLY_VALIDATED}:
            self.assertIn(entry, there | {why_not(command) for command in there},
                          "listed in commands_test.py, and no document has it any more")

    def test_every_document_does_what_it_says(self):
        ran = 0
        for document in DOCUMENTS:
            with self.subTest(document):
                terminal = Terminal()
                try:
                    ran += self.follow(document, terminal)
                finally:
                    terminal.end()
                    terminal.folder.cleanup()
        print(f"{ran} commands were run, {len(ONLY_VALIDATED)} validated, {len(NOT_RUN)} are listed with reasons")

    def follow(self, document, terminal):
        ran = 0
        for command in GIVEN.get(document, []):
            terminal.start(command, wait=True)
        for language, text in blocks(document):
            if language != "sh":
                continue
            kept = len(terminal.servers)
            for command in commands(text):
                if why_not(command) is not None:
                    continue
                if re.fullmatch(r"\w+=\S*", command):
                    name, _, value = command.partition("=")
                    terminal.environment[name] = value
                    continue
                ran += 1
                if command in ONLY_VALIDATED:
                    terminal.run(f"{command} --validate-config")
                elif SERVERS.match(command) and command.endswith("&"):
                    terminal.start(command[:-1], wait=False)
                    kept = len(terminal.servers)
                elif SERVERS.match(command):
                    terminal.start(command, wait=True)  # in a terminal of its own
                else:
                    said = terminal.run(command)
                    self.assertTrue(said or " > " in command, f"{command}: prints nothing")
            terminal.end(kept)
        return ran

    def help_of(self, program, *arguments):
        if (program, *arguments) not in self.helps:
            done = subprocess.run([os.path.join(binaries, program), *arguments], capture_output=True, text=True, check=False)
            self.assertEqual(done.returncode, 0, f"{program} {' '.join(arguments)}: {done.stderr}")
            self.helps[program, *arguments] = done.stdout
        return self.helps[program, *arguments]

    def description_of(self, words):
        """A text that has the flags of a command, or None where its program is not ours."""
        program, *rest = words
        subcommand = rest[0] if rest and re.fullmatch(r"[a-z]+", rest[0]) else None
        if program == "scripts/bench" or (program, subcommand) == ("tidepool", "bench"):
            sources = ["bench"] + ["client/cli"] * (program == "tidepool")
            return "".join(read(os.path.join(of, name)) for source in sources for of, _, names in os.walk(source)
                           for name in names if name.endswith((".py", ".cc")))
        if re.fullmatch(r"scripts/[a-z-]+(\.py)?", program):
            self.assertTrue(os.access(os.path.join(SOURCE, program), os.X_OK), "no such script")
            return read(program)
        if program in ("tidepool-cache", "tidepool-worker", "tidepool-http"):
            return self.help_of(program, "--help") + " --help --man"  # which every server has
        if program == "tidepool" and subcommand is not None:
            return self.help_of("tidepool", "help", *({subcommand} - {"help", "version"}))
        return None

    def test_commands_that_are_not_run_name_what_exists(self):
        self.helps = {}
        os.chdir(SOURCE)
        spans = [(document, span) for document in DOCUMENTS
                 for span in re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```$", "", read(document), flags=re.M | re.S))]
        spans += [(document, command[command.find("scripts/"):] if command.startswith("for ") else command)
                  for document, command in all_commands() if why_not(command) is not None]
        for document, span in spans:
            with self.subTest(document, command=span):
                described = self.description_of(span.split())
                own, _, passed_on = span.partition(" -- ")
                if span.startswith("scripts/bench decode ") and passed_on:  # what follows is for `tidepool generate`
                    generate = self.help_of("tidepool", "help", "generate")
                    for flag in re.findall(r"--[a-z0-9][a-z0-9-]*", passed_on):
                        self.assertIn(flag, generate)
                    span = own
                for flag in re.findall(r"(?<=[ \[])--[a-z0-9][a-z0-9-]*", span) if described is not None else []:
                    self.assertRegex(described, rf"{flag}\b|[\"(]{flag[2:].replace('-', '[-_]')}\b")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    enter_namespaces()
    binaries = os.path.abspath(sys.argv.pop(1))
    names = os.path.join(tempfile.mkdtemp(prefix="tidepool-test-"), "hosts")
    with open(names, "w", encoding="utf-8") as hosts:
        hosts.write("127.0.0.1 localhost cache.example worker.example\n")
    subprocess.run(["mount", "--bind", names, "/etc/hosts"], check=True)
    shutil.rmtree(os.path.dirname(names), ignore_errors=True)
    unittest.main(verbosity=2)
