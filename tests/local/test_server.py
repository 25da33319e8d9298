"""These run a real llama.cpp server on a tiny made-up model, built below.

With AUTOMIX_TEST_GGUF=FILE they also run on real weights.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx
import pytest

from langchain_automix import local as demo
from langchain_automix.errors import AutoMixError
from langchain_automix.local.server import LlamaServer, count_tokens
from tests.support.builders.waiting import LONG, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator

pytest.importorskip("xllamacpp", reason="needs the extra `local`")

ROOT = Path(__file__).parents[2]
posix = pytest.mark.skipif(os.name != "posix", reason="sends signals")


def tiny_gguf(path: Path) -> Path:
    """A whole Llama of one layer, all zeros, whose tokens are the 256 bytes."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    count, width = len(tokens), 32
    numbers = {
        "block_count": 1,
        "context_length": 2048,
        "embedding_length": width,
        "feed_forward_length": width,
        "attention.head_count": 1,
    }
    meta = {f"llama.{key}": struct.pack("<II", 4, value) for key, value in numbers.items()}
    meta["llama.attention.layer_norm_rms_epsilon"] = struct.pack("<If", 6, 1e-5)
    meta["general.architecture"] = struct.pack("<I", 8) + text("llama")
    meta["tokenizer.ggml.model"] = struct.pack("<I", 8) + text("llama")
    meta["tokenizer.ggml.tokens"] = struct.pack("<IIQ", 9, 8, count) + b"".join(map(text, tokens))
    meta["tokenizer.ggml.scores"] = struct.pack("<IIQ", 9, 6, count) + bytes(4 * count)
    kinds = struct.pack(f"<{count}i", 2, 3, 3, *[6] * 256)  # unknown, control, bytes
    meta["tokenizer.ggml.token_type"] = struct.pack("<IIQ", 9, 5, count) + kinds
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd": (width, count),
        "output_norm": (width,),
        "blk.0.attn_norm": (width,),
        "blk.0.ffn_norm": (width,),
    }
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        shapes[f"blk.0.{name}"] = (width, width)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(meta))
    head += b"".join(text(key) + value for key, value in meta.items())
    size = 0
    for name, shape in shapes.items():
        head += text(f"{name}.weight")
        head += struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, size)
        size += 4 * width * (shape[1] if len(shape) > 1 else 1)
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(size))
    return path


@pytest.fixture(scope="module", params=["tiny", "real"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if request.param == "tiny":
        return tiny_gguf(tmp_path_factory.mktemp("models") / "tiny.gguf")
    if path := os.environ.get("AUTOMIX_TEST_GGUF"):
        return Path(path)
    pytest.skip("AUTOMIX_TEST_GGUF names no file with real weights")


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_gguf(tmp_path / "tiny.gguf")


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[LlamaServer]:
    with LlamaServer(model, name="small", context_tokens=1024) as running:
        yield running


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def child_of(server: LlamaServer) -> int:
    assert server._child is not None
    return server._child.process.pid


def client_of(server: LlamaServer) -> httpx.Client:
    headers = {"Authorization": f"Bearer {server.api_key}"}
    return httpx.Client(headers=headers, trust_env=False)


def chat(base_url: str, key: str, **body: Any) -> Any:
    request = urllib.request.Request(
        f"{base_url}/chat/completions",
        json.dumps({"messages": [{"role": "user", "content": "Say hi."}], **body}).encode(),
        {"Authorization": f"Bearer {key}", "Content-Type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as response:
        return json.load(response)


class TestBadInput:
    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(AutoMixError, match=r"nowhere\.gguf cannot be read \(No such file"):
            LlamaServer(tmp_path / "nowhere.gguf", name="small").start()

    def test_not_a_gguf(self, tmp_path: Path) -> None:
        (tmp_path / "page.gguf").write_text("<html>")
        with pytest.raises(AutoMixError, match=r"not a GGUF file \(it begins with b'<htm'\)"):
            LlamaServer(tmp_path / "page.gguf", name="small").start()

    def test_nothing_but_the_magic(self, tmp_path: Path) -> None:
        (tmp_path / "magic.gguf").write_bytes(b"GGUF")
        with pytest.raises(AutoMixError, match=r"could not load .*magic\.gguf: .*header"):
            LlamaServer(tmp_path / "magic.gguf", name="small").start()

    def test_truncated(self, tiny: Path) -> None:
        tiny.write_bytes(tiny.read_bytes()[:-100])
        with pytest.raises(AutoMixError, match=r"corrupted or incomplete; check that the file"):
            LlamaServer(tiny, name="small").start()

    def test_port_taken(self, tiny: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(AutoMixError, match=f"Port {port} cannot be used .* another"):
                LlamaServer(tiny, name="small", port=port).start()

    @pytest.mark.parametrize(
        "numbers", [{"port": 65_536}, {"slots": 0}, {"context_tokens": -1}, {"threads": 0}]
    )
    def test_number_out_of_range(self, tiny: Path, numbers: dict[str, Any]) -> None:
        with pytest.raises(AutoMixError, match=f"^{next(iter(numbers))} is "):
            LlamaServer(tiny, name="small", **numbers)

    def test_xllamacpp_missing(self, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
        with pytest.raises(AutoMixError, match=r"pip install 'langchain-automix\[local\] @ "):
            LlamaServer(tiny, name="small").start()

    def test_not_ready_in_time(self, tiny: Path) -> None:
        server = LlamaServer(tiny, name="small", ready_within=0.01)
        with pytest.raises(AutoMixError, match=r"not ready within 0\.01 s"):
            server.start()
        assert server._child is None


class TestRunning:
    def test_answers_n_choices_under_its_name(self, server: LlamaServer) -> None:
        reply = chat(server.base_url, server.api_key, model="small", n=8, max_tokens=3)
        assert len(reply["choices"]) == 8
        assert reply["model"] == "small"

    def test_asks_for_the_key(self, server: LlamaServer) -> None:
        with pytest.raises(urllib.error.HTTPError, match="401") as caught:
            chat(server.base_url, "another", model="small", max_tokens=3)
        caught.value.close()

    def test_counts_tokens(self, server: LlamaServer) -> None:
        def count(text: str) -> int:
            return count_tokens(client_of(server), server.base_url, server.name, text)

        assert count("") == 0
        assert 0 < count("one two") < count("one two three four")

    @pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="needs /proc")
    def test_the_key_is_not_on_the_command_line(self, server: LlamaServer) -> None:
        command = Path(f"/proc/{child_of(server)}/cmdline").read_text()
        assert "langchain_automix.local.server" in command
        assert server.api_key not in command

    @posix
    def test_the_child_takes_no_notice_of_ctrl_c(self, server: LlamaServer) -> None:
        os.kill(child_of(server), signal.SIGINT)
        assert count_tokens(client_of(server), server.base_url, server.name, "still here") > 0
        server.check()


class TestLife:
    def test_a_chosen_port_and_start_and_stop_again(self, tiny: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = LlamaServer(tiny, name="small", port=port)
        server.stop()
        for _ in range(2):
            assert server.start() is server
            child = child_of(server)
            assert server.start() is server
            assert child_of(server) == child
            assert server.base_url == f"http://127.0.0.1:{port}/v1"
            server.stop()
            server.stop()
            assert not listens(port)

    def test_use_before_the_start(self, tiny: Path) -> None:
        server = LlamaServer(tiny, name="small")
        for use in (server.check, lambda: server.base_url):
            with pytest.raises(AutoMixError, match="'small' does not run; use it inside"):
                use()

    @posix
    def test_a_child_that_is_killed_is_noticed(self, model: Path) -> None:
        with LlamaServer(model, name="small", slots=1) as server:
            server.check()
            os.kill(child_of(server), signal.SIGKILL)
            assert server._child is not None
            server._child.process.wait(10)
            with pytest.raises(AutoMixError, match=r"'small' died with exit code -9; its log ends"):
                server.check()


PARENT = """
import sys
from pathlib import Path
from langchain_automix.local.server import LlamaServer
server = LlamaServer(Path(sys.argv[1]), name="small", slots=1)
def hold():
    print(server.base_url, flush=True)
    sys.stdin.read()
if sys.argv[2] == "with":
    with server:
        hold()
else:
    server.start()
    hold()
"""


@contextmanager
def parent(model: Path, how: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process with a server, until its input ends; gives it and the server's port."""
    command = [sys.executable, "-c", PARENT, str(model), how]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        # A dead proxy: nothing between the two processes may go through it.
        env={**os.environ, "HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # a process group of its own, to send Ctrl-C to
    )
    try:
        assert process.stdout is not None
        port = urlsplit(process.stdout.readline().strip()).port
        assert port is not None
        assert listens(port)
        yield process, port
    finally:
        process.kill()
        process.communicate()


@posix
class TestNoServerOutlivesItsParent:
    def test_killed_parent(
        self, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TMPDIR", str(tmp_path))
        with parent(model, "with") as (process, port):
            process.kill()
            process.wait(LONG)
            wait_for(lambda: not listens(port))
        assert not list(tmp_path.iterdir())

    def test_ctrl_c_in_the_terminal(self, model: Path) -> None:
        with parent(model, "with") as (process, port):
            os.killpg(process.pid, signal.SIGINT)
            _, err = process.communicate(timeout=LONG)
            assert "KeyboardInterrupt" in err
            assert not listens(port)

    def test_parent_that_forgets_to_stop_it(self, model: Path) -> None:
        with parent(model, "start") as (process, port):
            process.communicate(timeout=LONG)
            assert process.returncode == 0
            assert not listens(port)


def test_the_template_for_tools_leaves_plain_prompts_alone(tiny: Path) -> None:
    """Shipped recordings were made with the template of the weights."""
    template = Path(demo.__file__).with_name("qwen_tools.jinja")
    question = {"role": "user", "content": "Hi\n"}
    system = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
    function = {"name": "add", "description": "Add.", "parameters": {"type": "object"}}
    with LlamaServer(tiny, name="m", slots=1, chat_template=template) as running:
        url = running.base_url.removesuffix("/v1") + "/apply-template"

        def prompt(**body: Any) -> str:
            made: str = client_of(running).post(url, json=body).json()["prompt"]
            return made

        plain = prompt(messages=[question])
        tools = prompt(messages=[question], tools=[{"type": "function", "function": function}])
        own = prompt(messages=[{"role": "system", "content": " S "}, question])
    asked = "<|im_start|>user\nHi\n<|im_end|>\n<|im_start|>assistant\n"
    assert plain == f"<|im_start|>system\n{system}<|im_end|>\n{asked}"
    assert own == f"<|im_start|>system\n S <|im_end|>\n{asked}"
    assert tools.startswith(f"<|im_start|>system\n{system}\n\n# Tools")
    assert tools.endswith(asked)
    assert "<function_call>" in tools
    assert '"name": "add"' in tools


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
def test_threads_that_wait_do_not_spin_for_long(tmp_path: Path) -> None:
    """The core is for whoever computes, unless the user sets it otherwise."""
    with LlamaServer(tiny_gguf(tmp_path / "tiny.gguf"), name="tiny", slots=1) as server:
        environ = Path(f"/proc/{child_of(server)}/environ").read_bytes().split(b"\0")
    assert any(each.startswith(b"GOMP_SPINCOUNT=") for each in environ)
