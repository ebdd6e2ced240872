"""A run's or an export's folder -> a repository on a model hub, by the hub's own client, in one commit.

What goes is on a list of names (`_GOES`): checkpoints, training data, scores and whatever else lies in the folder stay.
A run's weights go to the top of the repository, where peft, transformers and embedsmith look for them. The client finds
the token by itself (`HF_TOKEN`, or `hf auth login`).
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from embedsmith.export.folders import PARITY_FILE
from embedsmith.export.gguf_files import GGUF, GGUF_FILE, read_put_prompts
from embedsmith.export.kinds import kind_of_export
from embedsmith.model.loading.backbone import SETTINGS_FILE, weights_folder
from embedsmith.model.loading.builtin import BUILTIN
from embedsmith.model.loading.checkpoint_files import read_object
from embedsmith.reporting.export_card import ExportCard, export_card
from embedsmith.support import files
from embedsmith.support.errors import ConfigError, RunError
from embedsmith.verbs.card import CARD_FILE
from embedsmith.verbs.origin import AVERAGE_FILE
from embedsmith.verbs.run_folder import is_run, read_outcome

_GOES = re.compile(
    r"""
    (adapter_)?config\.json | embedding\.json | modules\.json | parity\.json | config_sentence_transformers\.json
    | sentence_\w+_config\.json | generation_config\.json | (adapter_)?model[\w.-]*\.safetensors(\.index\.json)?
    | model\.gguf | tokenizer(_config)?\.json | special_tokens_map\.json | added_tokens\.json | chat_template\.jinja
    | vocab\.(json|txt) | merges\.txt | tokenizer\.model
    | \d+_(Dense|Normalize|Pooling)/(config\.json|model\.safetensors)
    | onnx/[\w.-]+\.onnx(_data)? | openvino/[\w.-]+\.(xml|bin|json)
    | README\.md | (LICENSE|NOTICE)[\w.-]*
    """,
    re.VERBOSE,
)


_HTTP_ERROR = HfHubHTTPError.__bases__[0]  # of httpx, or of what newer versions of the client have in its place


@dataclass(frozen=True)
class Upload:
    """One file that goes.

    Attributes:
        path: in the repository.
        content: the file here, or what was made for the repository.
        size_bytes: of it.
    """

    path: str
    content: Path | bytes
    size_bytes: int


@dataclass(frozen=True)
class PushPlan:
    """What would go where.

    Attributes:
        repository: owner/name, or a name of the user's own.
        uploads: by path.
        left_out: what lies in the folder and stays, by path; of a folder its name alone.
        is_public: whether anybody may read the repository, where it is made.
        is_update: whether it is there already.
        license: of the base, as the card says; None: the card says none.
        remarks: what others will miss.
    """

    repository: str
    uploads: Sequence[Upload]
    left_out: Sequence[str]
    is_public: bool
    is_update: bool
    license: str | None
    remarks: Sequence[str]


def plan_push(folder: Path, *, repository: str, is_public: bool = False, is_update: bool = False) -> PushPlan:
    """What of a folder goes into a repository; nothing is sent.

    Raises:
        RunError: the folder is that of no finished run, average or export.
        ConfigError: a hub takes no such name of a repository.
        ModelError: a file of it is damaged.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise ConfigError(f"{repository!r} is no name of a repository: {error}\nGive owner/name.") from None
    is_trained = is_run(folder) or (folder / AVERAGE_FILE).exists()
    kind = None if is_trained or not folder.is_dir() else kind_of_export(folder)
    if not is_trained and kind is None:
        what = f"{folder} is the folder of no run, average or export" if folder.exists() else f"There is no {folder}"
        raise RunError(f"{what}.\nGive one that embedsmith train, average or export wrote.")
    if is_run(folder):
        read_outcome(folder)
    weights = weights_folder(str(folder)) if is_trained else folder
    settings = weights / SETTINGS_FILE
    base = str(read_object(settings).get("base_model", "")) if settings.exists() else ""
    card = _card_of_run(folder, repository) if is_trained else _card_of_export(folder, str(kind), base, repository)
    uploads = [_upload(path, weights) for path in _files_of(weights) if path.name != CARD_FILE and _goes(path, weights)]
    uploads += [
        _upload(path, folder) for path in folder.glob("[LN]I[CN]*") if weights != folder and _goes(path, folder)
    ]
    uploads.append(Upload(CARD_FILE, card.encode(), len(card.encode())))
    going = {one.content for one in uploads} | {folder / CARD_FILE}
    license_line = re.search(r"^license: (.+)$", card.partition("\n---")[0], re.MULTILINE)
    return PushPlan(
        repository,
        sorted(uploads, key=lambda one: one.path),
        _left_out(folder, going),
        is_public,
        is_update,
        license_line and license_line[1],
        _remarks(base, is_adapter=any(one.path == "adapter_config.json" for one in uploads)),
    )


def push(plan: PushPlan) -> str:
    """Make the repository and send all in one commit; returns its address.

    Raises:
        RunError: it is there already, the hub is not reached or refuses, or no token is found.
    """
    api = HfApi(library_name="embedsmith", library_version=version("embedsmith"))
    with _errors_explained(plan, api.endpoint):
        repository = plan.repository
        if not plan.is_update:
            repository = api.create_repo(repository, private=not plan.is_public).repo_id
        operations = [
            CommitOperationAdd(one.path, str(one.content) if isinstance(one.content, Path) else one.content)
            for one in plan.uploads
        ]
        api.create_commit(repository, operations, commit_message=f"Upload with embedsmith {version('embedsmith')}")
    return f"{api.endpoint}/{repository}"


def _files_of(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _goes(path: Path, folder: Path) -> bool:
    return bool(_GOES.fullmatch(path.relative_to(folder).as_posix())) and not path.is_symlink()


def _upload(path: Path, folder: Path) -> Upload:
    return Upload(path.relative_to(folder).as_posix(), path, path.stat().st_size)


def _left_out(folder: Path, going: set[Path | bytes]) -> list[str]:
    """Files that stay, and folders of which nothing goes."""
    names = []
    for path in sorted(folder.iterdir()):
        inside = _files_of(path) if path.is_dir() else [path]
        stays = [one for one in inside if one not in going]
        if stays and len(stays) == len(inside):
            names.append(path.name + "/" * path.is_dir())
        else:
            names += [one.relative_to(folder).as_posix() for one in stays]
    return names


def _card_of_run(folder: Path, repository: str) -> str:
    """The run's own card, with the repository in the place of the folder."""
    path = folder / CARD_FILE
    if not path.exists():
        raise RunError(
            f"{folder} has no model card ({CARD_FILE}).\nWrite it with: embedsmith card {folder} --results FILE"
        )
    name, text = folder.resolve().name, files.read_text(path)
    for quoted in (f'"{name}/adapter"', f'"{name}/model"', f'"{name}")  # this folder'):
        text = text.replace(quoted, f'"{repository}"' + (")" if quoted.endswith("folder") else ""))
    return text.replace(f"embedsmith export {name} ", f"embedsmith export {repository} ")


def _card_of_export(folder: Path, kind: str, base: str, repository: str) -> str:
    """What lies there, or a card made of what the folder says."""
    if (folder / CARD_FILE).exists():
        return files.read_text(folder / CARD_FILE)
    builtin = BUILTIN.get(base)
    is_on_hub = bool(base) and not Path(base).is_absolute() and "/" in base
    parity = folder / PARITY_FILE
    return export_card(
        ExportCard(
            name=repository,
            kind=kind,
            hub_base=builtin.original if builtin else base.partition(":")[0] if is_on_hub else None,
            license=builtin.license if builtin else None,
            parity=read_object(parity) if parity.exists() else None,
            prompts=read_put_prompts(folder / GGUF_FILE) if kind == GGUF else {},
        )
    )


def _remarks(base: str, *, is_adapter: bool) -> list[str]:
    if is_adapter and Path(base).is_absolute():
        return [f"The adapter's base is {base}, which others do not have; export the run to merged, and push that."]
    return []


@contextmanager
def _errors_explained(plan: PushPlan, endpoint: str) -> Iterator[None]:
    """What the client raises, in our words."""
    name = plan.repository
    try:
        yield
    except OfflineModeIsEnabled:
        raise RunError(
            "The hub's client is told to stay offline (HF_HUB_OFFLINE).\nUnset it, and push again."
        ) from None
    except LocalTokenNotFoundError:
        raise RunError(_no_token("No token was found.")) from None
    except HfHubHTTPError as error:
        raise RunError(_explain(error, plan, endpoint)) from None
    except (_HTTP_ERROR, ConnectionError) as error:
        raise RunError(f"{endpoint} is not reached: {error}\nPush again.") from None
    except (RuntimeError, ValueError) as error:  # a file that did not go through, a card that the hub cannot read
        cause = f" ({error.__cause__})" if error.__cause__ else ""
        raise RunError(f"Nothing was put into {name}: {error}{cause}\nPush again, with --update.") from error


def _explain(error: HfHubHTTPError, plan: PushPlan, endpoint: str) -> str:
    status = error.response.status_code if error.response is not None else 0
    said = (error.server_message or str(error).partition("\n")[0]).strip()
    name = plan.repository
    if status == 401:
        return _no_token(f"{endpoint} does not know who you are ({said}).")
    if status == 403:
        return (
            f"{endpoint} does not let you write to {name}: {said}\nUse a token that may write, and a name of your own."
        )
    if status == 404 and plan.is_update:
        return f"There is no repository {name} that you may see.\nLeave --update away to make it."
    if status == 409 and not plan.is_update:
        return f"{name} is there already.\nGive --update to put a commit on it, or choose another name."
    return f"{endpoint} refuses ({status}): {said}"


def _no_token(what: str) -> str:
    return f"{what}\nLog in with hf auth login, or set HF_TOKEN to a token that may write."
