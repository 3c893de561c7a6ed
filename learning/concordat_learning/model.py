"""The base model with one LoRA adapter. Importing this module imports torch, transformers and peft (seconds)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers.models.vit.configuration_vit import ViTConfig
from transformers.models.vit.modeling_vit import ViTForImageClassification
from transformers.utils import logging as transformers_logging

from concordat.api.round import Factor
from concordat.protocol.artifact_types import ADAPTER_FILE
from concordat.tensors import Tensors
from concordat_learning.data import Examples
from concordat_learning.errors import InputError
from concordat_learning.fields import Fields, read_json
from concordat_learning.package import BasePackage, read_lora, read_package
from concordat_learning.tensors import is_trained, read_adapter

_EVALUATION_BATCH = 256

transformers_logging.set_verbosity(logging.ERROR)
transformers_logging.disable_progress_bar()


class AdaptedModel:
    """A base model whose LoRA weights can be exchanged, trained and judged; everything else is frozen."""

    def __init__(self, network: Any, package: BasePackage) -> None:
        self._network = network
        self.package = package

    @classmethod
    def open(cls, base: Path, adapter: Path) -> AdaptedModel:
        """Return the base package in `base` with the adapter in `adapter`; only local safetensors files are read.

        Raises InputError if either does not fit what it says, or one the other.
        """
        tensors = read_adapter(adapter / ADAPTER_FILE)
        package = read_package(base)
        model = cls(_with_lora(load_base(base, package), read_lora(adapter)), package)
        model.load(tensors, str(adapter))
        return model

    def parameters(self, factor: Factor) -> list[torch.nn.Parameter]:
        """Return the parameters of LoRA factor A, B or both, which alone take gradients from now on."""
        chosen = []
        for name, parameter in self._network.named_parameters():
            parameter.requires_grad_(is_trained(name, factor))
            if parameter.requires_grad:
                chosen.append(parameter)
        return chosen

    def tensors(self) -> Tensors:
        """Copies of the LoRA weights, float32, by their names in adapter files."""
        state = get_peft_model_state_dict(self._network, save_embedding_layers=False)
        return {name: np.array(value.detach().cpu().numpy(), np.float32) for name, value in sorted(state.items())}

    def load(self, tensors: Mapping[str, NDArray[np.float32]], where: str = "adapter") -> None:
        """Replace the LoRA weights. Raises InputError unless names and shapes are exactly those of the model."""
        own = {name: list(t.shape) for name, t in self.tensors().items()}
        given = {name: list(t.shape) for name, t in tensors.items()}
        for name in sorted(own.keys() ^ given.keys()):
            fault = "is missing" if name in own else "is not part of it"
            raise InputError(f"{where}: {name} {fault}; the adapter is not of this base package and configuration")
        for name, shape in own.items():
            if given[name] != shape:
                raise InputError(f"{where}: {name} has shape {given[name]}; this base package needs {shape}")
            if not bool(np.isfinite(tensors[name]).all()):
                raise InputError(f"{where}: {name} has values that are not finite")
        set_peft_model_state_dict(self._network, {n: torch.from_numpy(np.array(t)) for n, t in tensors.items()})

    def loss(self, examples: Examples) -> torch.Tensor:
        """Mean cross entropy of the examples."""
        return torch.nn.functional.cross_entropy(
            self._network(pixel_values=torch.from_numpy(examples.images)).logits, torch.from_numpy(examples.labels)
        )

    def training(self, on: bool) -> None:
        """Switch dropout on or off."""
        self._network.train(on)

    def correct(self, examples: Examples) -> int:
        """Return how many of the examples the model labels rightly."""
        return int((self.logits(examples.images).argmax(-1) == examples.labels).sum())

    def logits(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits [n, classes] of images [n, channels, height, width], without dropout."""
        self.training(False)
        with torch.inference_mode():
            batches = torch.split(torch.from_numpy(images), _EVALUATION_BATCH)
            return np.concatenate([self._network(pixel_values=batch).logits.numpy() for batch in batches])


def load_base(base: Path, package: BasePackage) -> Any:
    """Return the Vision Transformer in a base package, float32. Raises InputError."""
    weights = base / "model.safetensors"
    fields = Fields(read_json(base / "config.json"), str(base / "config.json"))
    fields.constant("model_type", "vit")
    try:
        # Not by the folder's name: with it transformers would take the adapter_config.json beside it for an adapter
        # to load. So these two files are all that is read.
        network, info = ViTForImageClassification.from_pretrained(
            None,
            config=ViTConfig.from_json_file(base / "config.json"),
            state_dict=load_file(weights),
            dtype=torch.float32,
            output_loading_info=True,
        )
    except Exception as error:  # whatever the libraries raise about files that others made
        raise InputError(f"{weights} is no ViTForImageClassification as config.json says: {error}") from error
    for fault, names in info.items():
        if names:
            raise InputError(f"{weights}: {fault.replace('_', ' ')}: {sorted(map(str, names))[:3]}")
    config = network.config
    takes = (config.num_channels, config.image_size, config.image_size)
    if takes != package.input_shape or config.num_labels != package.classes:
        raise InputError(
            f"{base / 'package.json'}: inputShape {list(package.input_shape)} and classes {package.classes} are not "
            f"those of config.json, {list(takes)} and {config.num_labels}"
        )
    return network


def _with_lora(network: Any, settings: Mapping[str, Any]) -> Any:
    try:
        return get_peft_model(network, LoraConfig(bias="none", **settings))
    except (TypeError, ValueError) as error:
        raise InputError(f"adapter_config.json does not fit the base package: {error}") from error
