"""A student divided among processes, for one that is too large for the memory of a single GPU.

    accelerate launch --use_fsdp --fsdp_version 2 --num_processes 8 -m demur distill org/model

FSDP2 (torch's `fully_shard`) keeps a share of every layer's frozen weights in each process, and
gathers a layer whole for as long as it computes. LoRA's weights, the embedding and the head are
whole everywhere, so that checkpoints, the optimizer and the mean of gradients are what they are
where nothing is divided. To measure, to make lessons and to choose, the leading process alone
spreads the whole model over its machine's GPUs while the others hold nothing.

Gathering a layer takes every process: all must make the very same forward passes, whatever rows
they hold.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from typing import Any

from demur.models.anatomy import decoder_layers
from demur.models.chat_model import ChatModel, load_weights
from demur.run.processes import launched


def release(chat: ChatModel) -> None:
    """Let the chat's model go, and give the memory of its GPUs back."""
    import torch

    chat.model = None
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def divided(chat: ChatModel, trust_remote_code: bool = False) -> ChatModel:
    """Return the chat with its model loaded anew, of which this process holds a share.

    The processes of one machine load in turn, so that its memory holds the model once at a time.

    Args:
        chat: its own model is let go.

    Raises:
        ModelError: the model cannot be loaded, or has layers that are not found.
    """
    from torch.distributed.device_mesh import init_device_mesh

    release(chat)
    processes, on_cpu = launched(), chat.placement.device == "cpu"
    processes.meet(on_cpu=on_cpu)  # the leader's model has left the GPUs
    mesh = init_device_mesh(chat.placement.device, (processes.count,))
    model = None
    for turn in range(processes.count):
        if turn == processes.local:
            model = load_weights(chat.folder, chat.placement, trust_remote_code=trust_remote_code)
            divide(model, mesh)
        processes.meet(on_cpu=on_cpu)
    return replace(chat, model=model)


def divide(model: Any, mesh: Any) -> None:
    """Keep this process's share of the weights of every decoder layer; the rest goes to its device.

    Args:
        model: whole, the same in every process, on the CPU; nothing of it is trained.
        mesh: of all processes, in one dimension.
    """
    from torch.distributed.fsdp import fully_shard

    layers, decoder = decoder_layers(model), model.get_decoder()
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    inside = {id(one) for layer in layers for one in layer.parameters()}
    device = _device(mesh)
    others = {one for one in model.parameters() if id(one) not in inside}
    for parameter in others:
        parameter.data = parameter.data.to(device)
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            setattr(module, name, buffer.to(device))
    # The root of the layers, which has the next one gathered while one computes.
    fully_shard(decoder, mesh=mesh, ignored_params=others)


def _device(mesh: Any) -> Any:
    import torch

    if mesh.device_type == "cpu":
        return torch.device("cpu")
    return torch.device(mesh.device_type, launched().local)


def frozen_names(model: Any) -> list[str]:
    """Return the names of the parameters and buffers that data parallelism is to leave alone."""
    frozen = [name for name, one in model.named_parameters() if not one.requires_grad]
    return frozen + [name for name, _ in model.named_buffers()]
