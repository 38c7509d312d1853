"""Loading guard models: what is loaded once, and what is said when something cannot be loaded."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from langchain_safeguard import (
    ConfigurationError,
    GuardConnectionError,
    GuardLoadError,
    InputGuard,
    Safeguard,
    SafeguardError,
    load_guard,
)
from langchain_safeguard.cli import main
from langchain_safeguard.guards import ModelGuard
from tests.hub_server import Hub, Repo
from tests.tiny_guards import tiny_llama_guard


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama_guard(tmp_path_factory.mktemp("guard"))


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "guard"
    shutil.copytree(folder, copy)
    return copy


def loaded(name: Any, **options: Any) -> ModelGuard[Any, Any]:
    guard = load_guard(name, **options)
    assert isinstance(guard, ModelGuard)
    return guard


GRANITE = "ibm-granite/granite-guardian-3.0-2b"
ADAPTER = "safetyllm/Llama-2-7b-chat-safety"

# what is loaded


def test_a_folder_is_recognised_by_its_template(folder: Path) -> None:
    guard = loaded(folder)
    assert guard.family.name == "llama-guard-3-1b"
    score = Safeguard(guard).check("Hello").score
    assert score is not None and 0 < score < 1


def test_weights_are_loaded_once_however_many_guards_and_threads(copied: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        guards = [*pool.map(lambda _: loaded(copied), range(16))]
    assert len({id(guard.engine) for guard in guards}) == 1
    other = loaded(copied, categories={"C1": "Talk of competitors."}, per_category=True)
    assert other.engine is guards[0].engine


def test_another_precision_is_another_model_with_nearly_the_same_scores(folder: Path) -> None:
    scores = [
        Safeguard(loaded(folder, **options)).check("Hello there").score or 0.0
        for options in ({}, {"dtype": "bfloat16"}, {"quantization": "8bit"})
    ]
    assert scores == pytest.approx([scores[0]] * 3, abs=0.02)


@pytest.mark.parametrize("quantization", ["4bit", "8bit"])
def test_a_quantised_guard_writes_no_log(
    folder: Path, quantization: str, caplog: pytest.LogCaptureFixture
) -> None:
    guard = loaded(folder, quantization=quantization)
    caplog.clear()
    assert not Safeguard(guard).check("Hello there").verdicts[0].failed
    assert caplog.records == []


def test_four_bits_change_weights_but_give_a_score(folder: Path) -> None:
    score = Safeguard(loaded(folder, quantization="4bit")).check("Hello there").score
    assert score is not None and 0 < score < 1


def test_a_family_can_be_named_for_a_folder_with_another_template(copied: Path) -> None:
    (copied / "chat_template.jinja").unlink(missing_ok=True)
    with pytest.raises(ConfigurationError, match="give family="):
        load_guard(copied)
    guard = loaded(copied, family="meta-llama/Llama-Guard-3-8B")
    assert guard.family.name == "llama-guard-3-8b"


def test_a_chain_loads_its_guard_when_the_first_text_comes(copied: Path) -> None:
    chain = InputGuard(guard=copied, policy={"default": "allow"})
    assert chain.invoke("Hello") == "Hello"


# what cannot be loaded


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def cut_short(folder: Path) -> None:
    os.truncate(folder / "model.safetensors", 5000)


def garbled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        if path.name != "tokenizer_config.json":
            path.unlink()


def broken_config(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def too_large(folder: Path) -> None:
    """Write a file of zeros that takes no room on the disk, with as many numbers as 2 TB hold."""
    numbers = 10**12
    header = {"w": {"dtype": "BF16", "shape": [numbers], "data_offsets": [0, 2 * numbers]}}
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    path.write_bytes(struct.pack("<Q", len(text)) + text)
    os.truncate(path, 8 + len(text) + 2 * numbers)


def encoder(folder: Path) -> None:
    for path in folder.glob("model*"):
        path.unlink()
    config = BertConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    BertModel(config).save_pretrained(folder)


def wordless(folder: Path) -> None:
    """Take the words of the verdict away: a vocabulary of bytes and two words."""
    path = folder / "tokenizer.json"
    found = json.loads(path.read_text())
    found["model"] = {
        "type": "WordLevel",
        "vocab": {"[UNK]": 0, "Hello": 1},
        "unk_token": "[UNK]",
    }
    found["added_tokens"] = []
    path.write_text(json.dumps(found))
    config = folder / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "unk_token": "[UNK]"}))


def changed(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def without_a_shard(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    assert load_guard(folder, dtype="bfloat16").name == folder.name
    min(folder.glob("model-00002-of-*")).unlink()


CODE = "raise SystemExit('code of a checkpoint was run')"


def with_code(folder: Path) -> None:
    classes = {"AutoConfig": "x.Config", "AutoModelForCausalLM": "x.Model"}
    changed(folder, "config.json", model_type="xyz", architectures=["X"], auto_map=classes)
    (folder / "x.py").write_text(CODE)


def with_code_for_its_tokenizer(folder: Path) -> None:
    classes = {"AutoTokenizer": ["x.Tokenizer", None]}
    changed(folder, "tokenizer_config.json", tokenizer_class="Tokenizer", auto_map=classes)
    (folder / "x.py").write_text(CODE)


def no_text(folder: Path) -> None:
    (folder / "chat_template.jinja").write_bytes(b"\xff\xfe")


def odd_quantization(folder: Path) -> None:
    changed(folder, "config.json", quantization_config="4bit")


def odd_layers(folder: Path) -> None:
    changed(folder, "config.json", num_hidden_layers="two")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_weights, "no .*safetensors"),
        (cut_short, "cut short"),
        (garbled, "damaged"),
        (without_tokenizer, "tokenizer"),
        (broken_config, "not JSON"),
        (too_large, r"needs 2000\.0 GB|needs 4000\.0 GB"),
        (encoder, "BertModel"),
        (wordless, "no tokens"),
        (without_a_shard, "lacks 1 of its files, model-00002-of-"),
        (with_code, "code of its own, which is never run"),
        (with_code_for_its_tokenizer, "tokenizer .* code of its own, which is never run"),
        (no_text, "chat_template.jinja is damaged"),
        (odd_quantization, "quantization_config='4bit'"),
        (odd_layers, "num_hidden_layers"),
    ],
)
def test_what_cannot_be_loaded_says_why(copied: Path, damage: Any, said: str) -> None:
    damage(copied)
    with pytest.raises(GuardLoadError, match=said):
        load_guard(copied)
    # The next attempt says the same: a failure is not kept as if it were a guard.
    with pytest.raises(GuardLoadError, match=said):
        load_guard(copied)


# adapters


@pytest.fixture
def adapter(folder: Path, tmp_path: Path) -> Path:
    model = AutoModelForCausalLM.from_pretrained(folder)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(model, config).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def base(folder: Path, copy: Path, **config: int) -> Path:
    """Save another base model, which differs from that of `folder` in some numbers."""
    shutil.copytree(folder, copy)
    changed_config = LlamaConfig.from_pretrained(folder, **config)
    LlamaForCausalLM(changed_config).save_pretrained(copy)
    return copy


def test_an_adapter_judges_with_its_base(folder: Path, adapter: Path) -> None:
    guard = loaded(adapter, base_model=folder, family="meta-llama/Llama-Guard-3-1B")
    scores = [Safeguard(each).check("Hello").score for each in (guard, loaded(folder))]
    assert scores[0] != pytest.approx(scores[1], abs=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 1},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
    ],
)
def test_an_adapter_on_another_base_is_refused(
    folder: Path, adapter: Path, tmp_path: Path, config: dict[str, int]
) -> None:
    # With layers of its own too few or too many, peft loads it with a part of it only.
    other = base(folder, tmp_path / "other", **config)
    with pytest.raises(GuardLoadError, match=r"does not fit[^$]*give base_model="):
        load_guard(adapter, base_model=other, family="meta-llama/Llama-Guard-3-1B")


def without_a_weight(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    weights.pop(min(weights))
    save_file(weights, adapter / "adapter_model.safetensors")


def pickled(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").unlink()
    torch.save({"no": "weights"}, adapter / "adapter_model.bin")


def unreadable(adapter: Path) -> None:
    (adapter / "adapter_model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0garbage!")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (without_a_weight, "1 weights, such as .*lora_A"),
        (pickled, "no .*safetensors; weights in other formats are not loaded"),
        (unreadable, "damaged"),
    ],
)
def test_a_damaged_adapter_says_so(folder: Path, adapter: Path, damage: Any, said: str) -> None:
    damage(adapter)
    with pytest.raises(GuardLoadError, match=said):
        load_guard(adapter, base_model=folder, family="meta-llama/Llama-Guard-3-1B")


def test_an_adapter_is_no_base(adapter: Path) -> None:
    with pytest.raises(ConfigurationError, match="is an adapter itself"):
        load_guard(adapter, base_model=adapter, family="meta-llama/Llama-Guard-3-1B")


def test_an_empty_folder_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(GuardLoadError, match=r"neither a config\.json"):
        load_guard(tmp_path)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("no such guard", {}, "unknown guard"),
        (17, {}, "allowed: a Guard"),
        ("embedded", {"categories": {}}, "no option categories"),
        ("folder", {"quantization": "2bit"}, "2bit.*4bit"),
        ("folder", {"dtype": "int4"}, "int4.*bfloat16"),
        ("folder", {"family": "nobody/knows"}, "nobody/knows"),
        ("folder", {"explain": True}, "explain"),
        ("folder", {"categories": {}}, "at least one"),
        ("folder", {"categories": {"violence": "x"}}, "such as 'O1'"),
        ("folder", {"base_model": "some/base"}, "no adapter"),
        ("folder", {"per_categroy": True}, "per_categroy.*allowed: .*per_category"),
        ("folder", {"categories": ["S1"]}, "allowed: a mapping"),
        ("folder", {"categories": {"S1": 5}}, "'S1' has 5"),
        ("folder", {"per_category": "yes"}, "per_category.*'yes'.*True"),
        ("folder", {"family": ADAPTER, "explain": "no"}, "explain.*'no'.*True"),
        ("folder", {"family": GRANITE, "explain": 1}, "explain"),
        ("", {}, "unknown guard ''"),
        ("folder", {"family": "embedded"}, "family='embedded'"),
        ("folder", {"template": 5}, "template=5"),
        ("folder", {"device_map": {"": "cpu"}}, "device_map=.*allowed: a text, or None"),
        ("folder", {"revision": 5}, "revision=5"),
        ("folder", {"max_tokens": "many"}, "max_tokens='many'"),
        ("folder", {"max_tokens": 0}, "max_tokens=0; allowed: a number from 1"),
        ("folder", {"max_tokens": 200}, "no room for a text: give a greater max_tokens"),
        ("folder", {"cache_bytes": -1}, "cache_bytes=-1"),
        ("folder", {"family": "google/shieldgemma-2b", "guidelines": ["x"]}, "guidelines=.*'x'"),
        ("folder", {"family": GRANITE, "risks": 5}, "risks=5; allowed"),
        ("folder", {"family": GRANITE, "risks": {"mine": 5}}, "'mine' has 5"),
        ("folder", {"family": "openai/gpt-oss-safeguard-20b", "limit": 0}, "limit=0"),
        ("folder", {"family": "openai/gpt-oss-safeguard-20b", "policy": 5}, "policy=5"),
        ("folder", {"family": ADAPTER, "guidelines": " "}, "guidelines=' '; allowed: a text"),
    ],
)
def test_wrong_values_are_named(
    folder: Path, name: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        load_guard(folder if name == "folder" else name, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"device_map='cuda:0'.*no GPU.*'cpu'"):
        load_guard(folder, device_map="cuda:0")


def test_offline_says_how_to_fetch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(SafeguardError, match="langchain-safeguard download no/such-model"):
        load_guard("no/such-model")


def test_a_guard_that_judges_other_sides_is_refused_when_the_chain_is_built() -> None:
    with pytest.raises(ConfigurationError, match="judges other sides than 'input'"):
        InputGuard(guard="heegyu/KoSafeGuard-8b-0503")


def test_no_network_is_needed_for_a_folder(folder: Path, monkeypatch: Any) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr("socket.socket.connect", refuse)
    assert load_guard(folder, dtype="float32").name == folder.name


# the hub


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    repos = {
        "meta-llama/Llama-Guard-3-1B": folder,
        "owner/gated": Repo(folder, gated=True),
        "owner/private": Repo(folder, private=True),
    }
    with Hub(repos) as served:
        served.use(monkeypatch, tmp_path / "home")
        yield served


def test_a_hub_id_is_fetched_once_and_then_works_offline(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load_guard("meta-llama/Llama-Guard-3-1B")
    assert first.name == "meta-llama/Llama-Guard-3-1B"
    assert first.revision
    hub.forget()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert loaded("meta-llama/Llama-Guard-3-1B").engine is loaded(first).engine
    assert not hub.requests


def test_only_safe_formats_are_fetched(hub: Hub) -> None:
    load_guard("meta-llama/Llama-Guard-3-1B")
    fetched = {request.rpartition("/")[2] for request in map(str, hub.requests)}
    assert not {name for name in fetched if name.endswith((".bin", ".py", ".pt", ".pkl"))}


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("owner/gated", {}, GuardLoadError, "accept its licence at"),
        ("owner/private", {}, GuardLoadError, "no 'owner/private' on the hub, or it is private"),
        ("owner/nothing", {}, GuardLoadError, "check the spelling"),
        (
            "meta-llama/Llama-Guard-3-1B",
            {"revision": "none-such"},
            GuardLoadError,
            "no revision 'none-such'",
        ),
    ],
)
def test_what_the_hub_refuses_is_said_in_plain_words(
    hub: Hub, name: str, options: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        load_guard(name, **options)


def test_a_broken_hub_is_a_connection_error(hub: Hub) -> None:
    hub.breaks(500)
    with pytest.raises(GuardConnectionError, match="meta-llama/Llama-Guard-3-1B"):
        load_guard("meta-llama/Llama-Guard-3-1B")


def test_the_command_fetches_ahead_and_says_where_to(
    hub: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", "meta-llama/Llama-Guard-3-1B"]) == 0
    printed = Path(capsys.readouterr().out.strip())
    assert (printed / "model.safetensors").is_file()
    assert main(["download", "owner/gated"]) == 1
    assert "is gated" in capsys.readouterr().err
    assert main(["download", "no-owner"]) == 2
