"""The networks that torchvision and timm have by name, and the images that each takes."""

from __future__ import annotations

from neq.utils.errors import UserError, unknown_name

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def describe(library: str, model: str, pretrained: bool) -> dict[str, object]:
    """The fields of the catalog entry of a library's network.

    Args:
        library: "torchvision" or "timm".
        model: its name there.
        pretrained: whether the library's weights are wanted.

    Raises:
        UserError: the library has no such network, or no weights for it.
    """
    return (_of_torchvision if library == "torchvision" else _of_timm)(model, pretrained)


def _of_torchvision(model: str, pretrained: bool) -> dict[str, object]:
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        hint = "torchvision.models.list_models(torchvision.models) has them all."
        raise unknown_name("net_name", f"torchvision:{model}", [f"torchvision:{n}" for n in known], hint)
    (size,) = models.get_model_weights(model).DEFAULT.transforms().crop_size
    return {"input_size": size, "torchvision": model, "pretrained": pretrained}


def _of_timm(model: str, pretrained: bool) -> dict[str, object]:
    import timm

    if not timm.is_model(model):
        known = [f"timm:{name}" for name in timm.list_models()]
        raise unknown_name("net_name", f"timm:{model}", known, "timm.list_models() has them all.")
    try:
        facts = timm.get_pretrained_cfg(model)
    except RuntimeError as error:
        raise UserError(f"net_name 'timm:{model}': {error} See timm.list_pretrained().") from None
    assert facts is not None, "timm has it"
    if pretrained and not facts.has_weights:
        raise UserError(f"timm has no weights for {model!r}; take net_name 'timm:{model}', a random start")
    fields: dict[str, object] = {"input_size": facts.input_size[-1], "timm": model, "pretrained": pretrained}
    if pretrained and (facts.mean, facts.std) != IMAGENET:
        fields["mean_std"] = (facts.mean, facts.std)
    return fields
