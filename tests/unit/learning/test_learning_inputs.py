"""Whatever is wrong with a Job's inputs ends in one sentence and the right exit code, and leaves no result."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from concordat.tensors import write_tensors
from concordat_learning import train
from concordat_learning.entry import run
from concordat_learning.errors import DataError, InputError
from concordat_learning.package import read_lora
from tests.support.learning import Job

pytestmark = pytest.mark.xdist_group("torch")

Spoil = Callable[[Job], object]

NAN = np.full((24, 1, 4, 4), np.nan, np.float32)


class Bomb:
    """Loading its pickle creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def contract(**members: Any) -> Spoil:
    """Change the contract; a dictionary changes members of that member, None removes."""

    def spoil(job: Job) -> None:
        for name, value in members.items():
            job.contract[name] = {**job.contract[name], **value} if isinstance(value, dict) else value
        job.write_task("contract.json", job.contract)

    return spoil


def task(**members: Any) -> Spoil:
    return lambda job: job.write_task("task.json", {"kind": "train", "site": "site-a", **members})


def data(name: str = "train.safetensors", **fields: Any) -> Spoil:
    return lambda job: job.write_data(name, **fields)


def file(path: str, content: bytes) -> Spoil:
    return lambda job: (job.root / path).write_bytes(content)


def missing(path: str) -> Spoil:
    return lambda job: (job.root / path).unlink()


def pickled(path: str) -> Spoil:
    return lambda job: (job.root / path).write_bytes(pickle.dumps(Bomb(job.root / "boom")))


def package(**members: Any) -> Spoil:
    def spoil(job: Job) -> None:
        path = job.root / "base" / "package.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **members}))

    return spoil


def job_result(job: Job) -> int:
    """The exit code of the Job, but for its look at the network."""
    folders = job.folders
    flags = [f"--{name}={getattr(folders, name)}" for name in ("base", "task", "data", "out")]
    return run(lambda given: train.train_site(given, started=0.0, clock=lambda: 0.0), "", flags)


OTHER_SITE = {"name": "site-b", "keyThumbprint": "SHA256:" + "B" * 43, "publicKey": "pem"}
BEFORE_TORCH: list[tuple[Spoil, int, str]] = [
    (missing("task/contract.json"), 64, "contract.json cannot be read: No such file or directory"),
    (file("task/contract.json", b"{"), 64, "contract.json: Invalid JSON"),
    (file("task/contract.json", b"[1]"), 64, "contract.json: Input should be an object"),
    (file("task/contract.json", b"[" * 200_000), 64, "contract.json: Invalid JSON"),
    (
        contract(schema="concordat.dev/round-contract/v2"),
        64,
        "schema: Input should be 'concordat.dev/round-contract/v1",
    ),
    (contract(recipe=None), 64, "recipe: Input should be an object"),
    (contract(recipe={"trainFactor": "C"}), 64, r"recipe\.trainFactor: Input should be 'A', 'B' or 'Both', got 'C'"),
    (contract(recipe={"trainFactor": "AB"}), 64, r"recipe\.trainFactor: Input should be 'A', 'B' or 'Both', got 'AB'"),
    (contract(recipe={"batchSize": 0}), 64, r"recipe\.batchSize: Input should be greater than or equal to 1, got 0"),
    (contract(recipe={"batchSize": 1.5}), 64, r"recipe\.batchSize: Input should be a valid integer.*, got 1\.5"),
    (
        contract(recipe={"learningRate": "fast"}),
        64,
        r"recipe\.learningRate: String should match .*, got 'fast'",
    ),
    (contract(recipe={"learningRate": "nan"}), 64, r"recipe\.learningRate: String should match .*, got 'nan'"),
    (contract(recipe={"seed": None}), 64, r"recipe\.seed: Input should be a valid integer"),
    (contract(budget={"maxSteps": 2_000_000}), 64, r"budget\.maxSteps: Input should be less .*, got 2000000"),
    (
        contract(budget={"maxWallSeconds": "inf"}),
        64,
        r"budget\.maxWallSeconds: Input should .*, got 'inf'",
    ),
    (contract(sites=[OTHER_SITE]), 64, "sites does not name 'site-a'; the contract is for other sites"),
    (contract(sites="site-a"), 64, "sites: Input should be a valid array, got 'site-a'"),
    (task(kind="evaluate"), 64, "task.json: kind: Input should be 'train', got 'evaluate'"),
    (task(site=None), 64, "task.json: site: Input should be a valid string"),
    (task(site="site-b"), 64, "the contract is for other sites"),
    (missing("base/package.json"), 64, "package.json cannot be read"),
    (package(task="text-generation"), 64, "this image knows 'image-classification'"),
    (package(inputShape=[1, 4]), 64, r"inputShape is \[1, 4\]; it must be \[channels, height, width\]"),
    (package(inputShape=[1, 8, 8]), 65, r"images has shape \[24, 1, 4, 4\]; the base package takes \['n', 1, 8, 8\]"),
    (package(classes=2), 65, "labels has values in 0..2; allowed is 0..1"),
    (missing("data/train.safetensors"), 65, "train.safetensors is missing; put the site's data on the volume"),
    (missing("data/validation.safetensors"), 65, "validation.safetensors is missing"),
    (file("data/train.safetensors", b"x" * 100), 65, "cannot be read as safetensors"),
    (pickled("data/train.safetensors"), 65, "cannot be read as safetensors"),
    (file("data/train.safetensors", write_tensors({"images": NAN})), 65, "labels is missing; the file has images"),
    (data(images=NAN), 65, "images has values that are not finite"),
    (data("validation.safetensors", images=NAN), 65, "validation.safetensors: images has values that are not finite"),
    (data(images=np.full((24, 1, 4, 4), 255, np.float32)), 65, "images has values in 255..255; scale them to 0..1"),
    (data(images=np.zeros((24, 1, 4, 4))), 65, "images has dtype F64; it must be F32"),
    (data(labels=np.zeros(23, np.int64)), 65, r"labels has shape \[23\]; it must be \[24\], one an image"),
    (data(labels=np.zeros(24, np.int32)), 65, "labels has dtype I32; it must be I64"),
    (data(labels=np.full(24, -1)), 65, r"labels has values in -1..-1; allowed is 0..2"),
    (
        data(images=np.zeros((0, 1, 4, 4), np.float32), labels=np.zeros(0, np.int64)),
        65,
        "images is empty; at least one example is needed",
    ),
]


@pytest.mark.parametrize(("spoil", "code", "says"), BEFORE_TORCH, ids=lambda value: value if type(value) is str else "")
def test_told_before_anything_heavy_is_imported(
    bare_job: Job, spoil: Spoil, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(bare_job)
    assert job_result(bare_job) == code
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    with pytest.raises((InputError, DataError), match=says):
        raise InputError(error)
    assert not (bare_job.root / "boom").exists()
    assert not (bare_job.root / "out" / "result").exists()


def adapter(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Spoil:
    def spoil(job: Job) -> None:
        (job.root / "task" / "parent" / "adapter_model.safetensors").write_bytes(write_tensors(change(job.parent())))

    return spoil


def first(tensors: dict[str, Any], make: Callable[[Any], Any]) -> dict[str, Any]:
    name = min(tensors)
    return {**tensors, name: make(tensors[name])}


def config(path: str, **members: Any) -> Spoil:
    def spoil(job: Job) -> None:
        target = job.root / path
        target.write_text(json.dumps({**json.loads(target.read_text()), **members}))

    return spoil


LORA, VIT, WEIGHTS = "task/parent/adapter_config.json", "base/config.json", "task/parent/adapter_model.safetensors"
WITH_TORCH: list[tuple[Spoil, str]] = [
    (missing(WEIGHTS), "adapter_model.safetensors: No such file or directory; the agent"),
    (pickled(WEIGHTS), "adapter_model.safetensors: a pickled or zipped file"),
    (pickled("base/model.safetensors"), "model.safetensors is no ViTForImageClassification"),
    (adapter(lambda t: first(t, lambda v: v.T.copy())), r"lora_A\.weight has shape \[8, 2\]; .* needs \[2, 8\]"),
    (adapter(lambda t: first(t, lambda v: v.astype(np.float16))), "dtype is F16, expected F32"),
    (adapter(lambda t: first(t, lambda v: v * np.float32(np.inf))), "has values that are not finite"),
    (adapter(lambda t: dict(sorted(t.items())[1:])), r"lora_A\.weight is missing; the adapter is not of this base"),
    (adapter(lambda t: {**t, "extra": t[min(t)]}), "extra is not part of it; the adapter is not of this base"),
    (config(LORA, use_dora=True), "use_dora is True; only plain LoRA can be averaged, leave it out"),
    (config(LORA, r=3), r"has shape \[2, 8\]; this base package needs \[3, 8\]"),
    (config(LORA, target_modules=["nothing"]), "adapter_config.json does not fit the base package"),
    (config(VIT, model_type="bert"), "model_type is 'bert'; this image knows 'vit'"),
    (config(VIT, hidden_size=16), "model.safetensors is no ViTForImageClassification as config.json says"),
    (config(VIT, num_hidden_layers=2), "missing keys"),
    (package(inputShape=[1, 4, 4], classes=4), "are not those of config.json"),
]


@pytest.mark.parametrize(("spoil", "says"), WITH_TORCH, ids=lambda value: value if type(value) is str else "")
def test_what_does_not_fit_the_base_package_is_told(
    job: Job, spoil: Spoil, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spoil(job)
    assert job_result(job) == 64
    with pytest.raises(InputError, match=says):
        raise InputError(capsys.readouterr().err)
    assert not (job.root / "boom").exists()
    assert not (job.root / "out" / "result").exists()


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; it must be 'LORA'"),
        ({"bias": "all"}, "bias is 'all'; it must be 'none'"),
        ({"rank_pattern": {"(a+)+": 4}}, r"rank_pattern has the key \(a\+\)\+; write a plain module name"),
        ({"rank_pattern": [4]}, r"rank_pattern is \[4\]; it must be an object"),
        ({"modules_to_save": ["classifier"]}, "modules_to_save is"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"an_option_of_tomorrow": 1}, "an_option_of_tomorrow is 1"),
        ({"r": 0}, "r is 0"),
        ({"lora_alpha": "much"}, "lora_alpha is 'much'"),
        ({"lora_dropout": 1}, "lora_dropout is 1"),
    ],
)
def test_an_adapter_that_is_not_plain_lora_is_refused(tmp_path: Path, members: dict[str, Any], says: str) -> None:
    plain = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "target_modules": ["q_proj"]}
    (tmp_path / "adapter_config.json").write_text(json.dumps({**plain, **members}))
    with pytest.raises(InputError, match=says):
        read_lora(tmp_path)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True},
        {"rank_pattern": {"q_proj": 4}, "alpha_pattern": {"q_proj": 9}},
        {"target_modules": r".*\.fc\d"},
        {"exclude_modules": ["fc1"]},
    ],
    ids=lambda settings: next(iter(settings), "plain"),
)
def test_hub_and_trainer_accept_the_same_adapters(job: Job, settings: dict[str, Any]) -> None:
    """An adapter that peft saved is one that trainer and hub read, with the same scale for every module."""
    from peft import LoraConfig, get_peft_model, get_peft_model_state_dict

    from concordat.lora import read_adapter
    from concordat_learning.model import AdaptedModel, load_base
    from concordat_learning.package import read_package

    base, parent = job.root / "base", job.root / "task" / "parent"
    config = LoraConfig(**({"r": 2, "lora_alpha": 4, "target_modules": ["fc1", "fc2", "q_proj"]} | settings))
    network = get_peft_model(load_base(base, read_package(base)), config)
    tensors = {n: t.numpy() for n, t in get_peft_model_state_dict(network, save_embedding_layers=False).items()}
    network.peft_config["default"].save_pretrained(parent)
    (parent / "adapter_model.safetensors").write_bytes(write_tensors(tensors))
    opened = AdaptedModel.open(base, parent)
    assert opened.tensors().keys() == tensors.keys()
    hub = read_adapter(tensors, (parent / "adapter_config.json").read_bytes())
    layers = opened._network.named_modules()
    scales = {name: layer.scaling["default"] for name, layer in layers if hasattr(layer, "lora_A")}
    assert {module.name: module.scale for module in hub.modules.values()} == scales
