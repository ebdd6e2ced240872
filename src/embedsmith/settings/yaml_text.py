"""YAML whose scalars stay the text that stands there: what a setting's text means, the setting's type says.

`output_dir: 2026-11-25`, `prompt: yes` and `file: 007` are texts, as they are on the command line; a switch or a number
is read from its text by the field that takes it. Only an empty value, `null` and `~` are nothing. A key that stands
twice is a fault, where YAML's own loaders take the last one without a word.
"""

from typing import Any

import yaml

_MOST_VALUES = 100_000
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
        yaml.YAMLError: no YAML, or a key twice in one mapping, and the message says where; or aliases that stand for
            too much or for themselves.
    """
    loader = _TextLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, sizes={})
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError(f"it is nested too deeply: {error}") from None
    finally:
        loader.dispose()


def _count(node: yaml.Node, *, sizes: dict[int, int]) -> int:
    """How many values would stand there if each alias were written out; a few lines can mean billions.

    Args:
        node: a part of what stands there.
        sizes: id -> number, of the parts that were counted; 0: it is being counted, so it holds itself.
    """
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) not in sizes:
        sizes[id(node)] = 0
        inner = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        sizes[id(node)] = 1 + sum(_count(one, sizes=sizes) for one in inner)
    if not 0 < sizes[id(node)] <= _MOST_VALUES:
        problem = f"aliases stand for themselves, or for more than {_MOST_VALUES:,} values; write them out"
        raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
    return sizes[id(node)]
