"""doctor: MODEL -> what is right and wrong with the way it turns text into vectors."""

from embedsmith.model.doctor import Diagnosis, examine
from embedsmith.model.embedder import Embedder
from embedsmith.settings.choices import Precision


def diagnose(
    model: str,
    *,
    prompt: str | None = None,
    max_length: int | None = None,
    text: str | None = None,
    base_model: str | None = None,
    device: str | None = None,
) -> Diagnosis:
    """Check that MODEL turns text into tokens and vectors as it should; see `model.doctor`.

    Raises:
        ModelError: MODEL cannot be loaded.
        ConfigError: an unusable prompt, length limit or device.
    """
    # float32, so that a difference is the model's and not the number format's.
    embedder = Embedder.load(
        model, prompt=prompt, max_length=max_length, precision=Precision.FP32, base_model=base_model, device=device
    )
    return examine(embedder, text=text)
