"""What a chat model is asked for: one table row for each kind of task, and the placeholders that make requests differ.

The kinds are those of Wang et al. 2023 (arXiv 2401.00368): asymmetric ones, where tasks are thought up first and then
an example for each, and symmetric ones, asked for at once. The wording is our own.
"""

import random
from dataclasses import dataclass

ANSWER_KEYS = ("anchor", "positive", "negative")
TASKS_PER_ANSWER = 20


@dataclass(frozen=True)
class TaskType:
    """A kind of task.

    Attributes:
        tasks: what to think up tasks of; "" for a symmetric kind, which needs none.
        anchor, positive: what the two texts are, for the request.
    """

    tasks: str
    anchor: str
    positive: str

    @property
    def needs_tasks(self) -> bool:
        """Whether tasks are thought up first."""
        return bool(self.tasks)


TASK_TYPES: dict[str, TaskType] = {
    "short-long": TaskType(
        "search tasks in which a short query is answered by a long document",
        "a search query",
        "a document that answers it",
    ),
    "long-short": TaskType(
        "tasks that sort or label: a long text goes in, a short label or category comes out",
        "a text to be labelled",
        "its right label",
    ),
    "short-short": TaskType(
        "matching tasks in which a short text is to find another short text, such as a title and its subtitle",
        "a short text",
        "the short text that belongs to it",
    ),
    "long-long": TaskType(
        "matching tasks in which a long text is to find another long text, such as an article and one that supports it",
        "a long text",
        "the long text that belongs to it",
    ),
    "sts": TaskType("", "a text", "another text that means nearly the same in other words"),
    "bitext": TaskType("", "a text", "its translation"),
}

_WORDS = {"short": ("a few", "under ten", "five to fifteen"), "long": ("about 60", "at least 100", "about 200")}
_CHOICES = {
    "audience": ("a school child", "a college student", "an expert in the field"),
    "clarity": ("plain", "understandable with some effort", "ambiguous"),
    "style": ("everyday", "extremely specific", "terse", "formal", "keyword-like"),
    "topic": (
        *("work", "food", "law", "medicine", "machines", "nature", "money", "travel", "sport", "history"),
        *("family", "software", "building", "art", "weather", "school", "politics", "music", "trade", "language"),
    ),
}
_SYMMETRIC_UNIT = ("sentence", "phrase", "short paragraph")


def tasks_request(kind: str, *, language: str) -> str:
    """Asks for a list of tasks."""
    return (
        f"Think up {TASKS_PER_ANSWER} different {TASK_TYPES[kind].tasks}. Each is one sentence that says what is given "
        f"and what is to be found, for readers of {language}; cover many fields of life. "
        "Answer with a JSON list of strings and nothing else."
    )


def example_request(kind: str, *, task: str, languages: tuple[str, str], stream: random.Random) -> str:
    """Asks for one example of a task, or of a symmetric kind."""
    kind_of = TASK_TYPES[kind]
    chosen = {name: stream.choice(options) for name, options in _CHOICES.items()}
    first, second = (kind.split("-") * 2)[:2] if kind_of.needs_tasks else ("short", "short")
    if kind_of.needs_tasks:
        what = f"The task: {task}\nWrite one example of it, to do with {chosen['topic']}."
    else:
        unit = stream.choice(_SYMMETRIC_UNIT)
        what = f"Write an example of {kind_of.anchor} (a {unit} about {chosen['topic']}) and what belongs to it."
    return (
        f"{what}\n"
        "Answer with one JSON object and nothing else. Its keys:\n"
        f'- "anchor": {kind_of.anchor}, in {languages[0]}, {stream.choice(_WORDS[first])} words, {chosen["style"]} in '
        f"style, {chosen['clarity']} in meaning;\n"
        f'- "positive": {kind_of.positive}, in {languages[1]}, {stream.choice(_WORDS[second])} words;\n'
        f'- "negative": of the same kind and language as the positive, close to it in subject and words, but wrong.\n'
        f"Write what {chosen['audience']} could read, from your own head, without saying which of the texts is right."
    )


def instruction_for(kind: str, *, task: str, languages: tuple[str, str]) -> str:
    """What the triplet's query is for, as the model to be trained will read it."""
    if kind == "sts":
        return "Find texts that mean the same."
    return f"Find the translation into {languages[1]}." if kind == "bitext" else task
