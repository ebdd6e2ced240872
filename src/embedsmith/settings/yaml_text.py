"""YAML whose scalars stay the text that stands there: what a setting's text means, the setting's type says.

`output_dir: 2026-11-25`, `prompt: yes` and `file: 007` are texts, as they are on the command line; a switch or a number
is read from its text by the field that takes it. Only an empty value, `null` and `~` are nothing. A key that stands
twice is a fault, where YAML's own loaders take the last one without a word.
"""

from typing import Any

import yaml

_KEPT_TAGS = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_RESOLVERS = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT_TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _TextLoader(yaml.SafeLoader):
    yaml_implicit_resolvers = _RESOLVERS

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                line = key.start_mark.line + 1
                if key.value in lines:
                    problem = f"{key.value!r} stands there twice, on line {lines[key.value]} and line {line}"
                    raise yaml.constructor.ConstructorError(None, None, problem)
                lines[key.value] = line
        return super().construct_mapping(node, deep=deep)


def parse_yaml(text: str) -> Any:
    """Mappings, lists, texts and None.

    Raises:
        yaml.YAMLError: no YAML, or a key twice in one mapping; the message says where.
    """
    try:
        return yaml.load(text, Loader=_TextLoader)  # noqa: S506 (a SafeLoader)
    except RecursionError as error:
        raise yaml.YAMLError(f"it is nested too deeply: {error}") from None
