"""Prompts from files: every format, the finding of the column, and every bad input."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from demur.errors import PromptError
from demur.prompts import load_pairs, load_prompts, read_pairs, read_prompts

TWO = ["First, one?", 'She said "two"\nlines']


def texts(path: Path, kind="harmful", column=None) -> list[str]:
    return [prompt.text for prompt in load_prompts(str(path), kind, column)]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def write_parquet(folder: Path, name: str, columns: dict) -> Path:
    import pyarrow.parquet

    path = folder / name
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


def test_csv_and_its_dialects(tmp_path):
    quoted = '"First, one?"\n"She said ""two""\nlines"\n'
    assert texts(write(tmp_path, "a.csv", "prompt\n" + quoted)) == TWO
    assert texts(write(tmp_path, "b.csv", b"\xef\xbb\xbfPrompt\r\n" + quoted.encode())) == TWO
    assert texts(write(tmp_path, "c.csv", "id;prompt\n1;One\n2;Two, three\n")) == [
        "One",
        "Two, three",
    ]
    assert texts(write(tmp_path, "d.TSV", "id\tgoal\n1\tOne, two\n")) == ["One, two"]
    assert texts(write(tmp_path, "e.csv", "How do I bake bread?\nHow do I dance?\n")) == [
        "How do I bake bread?",
        "How do I dance?",
    ]


def test_json_and_its_shapes(tmp_path):
    rows = [{"prompt": text, "n": 1} for text in TWO]
    shapes = [TWO, rows, {"about": "x", "data": rows}, {"items": TWO}]
    shapes.append({"prompt": TWO, "id": [1, 2]})
    for number, shape in enumerate(shapes):
        assert texts(write(tmp_path, f"{number}.json", json.dumps(shape))) == TWO
    lines = "\n\n".join(json.dumps(row) for row in rows) + "\n"
    for name in ("a.jsonl", "b.ndjson", "lines.json"):
        assert texts(write(tmp_path, name, lines)) == TWO


def test_json_lines_keep_unicode_line_separators(tmp_path):
    line = json.dumps({"prompt": "one\u2028two"}, ensure_ascii=False)
    assert texts(write(tmp_path, "a.jsonl", line)) == ["one\u2028two"]


def test_parquet(tmp_path):
    assert texts(write_parquet(tmp_path, "a.parquet", {"id": [1, 2], "Goal": TWO})) == TWO
    chats = [[{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello?"}]]
    path = write_parquet(tmp_path, "b.parquet", {"messages": chats})
    assert texts(path, "ordinary") == ["Hello?"]


def test_plain_text_is_a_prompt_a_line(tmp_path, caplog):
    path = write(tmp_path, "a.txt", "One?\r\n\n  Two. \n# three\n")
    with caplog.at_level(logging.WARNING):
        loaded = read_prompts(path, "ordinary")
    assert [prompt.text for prompt in loaded.prompts] == ["One?", "Two.", "# three"]
    assert loaded.empty == 1
    assert "left out 1 empty rows of 4" in caplog.text


def test_prompts_know_kind_hazard_source_and_block(tmp_path):
    path = write(tmp_path, "mine.csv", "Category,prompt\nFraud,One\n,Two\nArson,one!\n")
    one, two, again = load_prompts(path, "harmful")
    assert [one.hazard, two.hazard, again.hazard] == ["Fraud", "", "Arson"]
    assert {one.source, two.source} == {"mine.csv"}
    assert (one.kind, one.pair) == ("harmful", "")
    assert one.block == again.block != two.block
    assert load_prompts(path, "ordinary")[0].hazard == ""


@pytest.mark.parametrize(
    ("header", "column"),
    [
        ("Goal,Target,Behavior,Category", "Goal"),
        ("category,source,forbidden_prompt", "forbidden_prompt"),
        ("Behavior,FunctionalCategory,ContextString", "Behavior"),
        ("id,PROMPT,type,focus", "PROMPT"),
        ("instruction,context,response", "instruction"),
        ("harmful,benign", "harmful"),
        ("3,wishes", "wishes"),
    ],
)
def test_the_column_is_found(tmp_path, header, column):
    cells = [f"text of {name}" if name != "3" else "" for name in header.split(",")]
    path = write(tmp_path, "a.csv", f"{header}\n{','.join(cells)}\n")
    assert texts(path) == [f"text of {column}"]


def test_benign_side_and_named_columns(tmp_path):
    path = write(tmp_path, "a.csv", "harmful,benign,Extra\nbad,good,more\n")
    assert texts(path, "twin") == ["good"]
    assert texts(path, "twin", "extra") == ["more"]


def test_chats_give_the_first_turn_of_the_user(tmp_path):
    parts = [
        {"type": "text", "text": "Look:"},
        {"type": "image"},
        {"type": "text", "text": "what?"},
    ]
    rows = [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]},
        {"messages": [{"from": "system", "value": "x"}, {"from": "human", "value": "Hey"}]},
        {"messages": [{"role": "user", "content": parts}]},
        {"messages": [{"role": "assistant", "content": "Nobody asked"}]},
        {"messages": []},
    ]
    path = write(tmp_path, "a.json", json.dumps(rows))
    loaded = read_prompts(path, "ordinary")
    assert [prompt.text for prompt in loaded.prompts] == ["Hi", "Hey", "Look:\nwhat?"]
    assert (loaded.columns, loaded.empty) == (("messages",), 2)


def test_pairs(tmp_path):
    rows = [
        {"harmful": "kill him", "benign": "kill the process", "category": "x"},
        {"harmful": "rob her", "benign": " "},
        {"harmful": "kill him", "benign": "kill time"},
    ]
    loaded = read_pairs(write(tmp_path, "p.jsonl", "\n".join(map(json.dumps, rows))))
    assert loaded.empty == 1
    first, twin, other, _ = loaded.prompts
    assert [prompt.kind for prompt in loaded.prompts] == ["harmful", "twin"] * 2
    assert first.pair == twin.pair != other.pair
    assert first.block == twin.block == other.block
    assert (twin.text, twin.hazard, twin.source) == ("kill the process", "x", "p.jsonl")
    with pytest.raises(PromptError, match=r"no two columns .* \(it has: a, b\)"):
        load_pairs(write(tmp_path, "q.csv", "a,b\n1,2\n"))


BAD = [
    ("empty.csv", b"", "is empty"),
    ("blank.txt", b"\n \n", "is empty"),
    ("a.xlsx", b"PK", "The ending of .* is unknown"),
    ("a.json", b'[\n"a",\n"b"\n', "line 4: not readable as JSON"),
    ("b.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "line 2: not readable as JSON"),
    ("c.json", b'{"a": 1}', "without one list of prompts"),
    ("d.json", b'{"a": ["x"], "b": ["x", "y"]}', r"lists found: a, b"),
    ("e.json", b'"text"', "holds no list"),
    ("f.json", b'["a", 3]', "row 2: neither a text nor an object, but a number"),
    ("g.jsonl", b'{"prompt": "a"}\n{"prompt": 7}\n', "line 2: the prompt in 'prompt' is a number"),
    ("h.jsonl", b'{"prompt": {"a": 1}}', "is an object"),
    ("v.jsonl", b'{"prompt": "a \\ud800 b"}', "line 1: .* half of a character"),
    ("i.jsonl", b'{"prompt": ["a", "b"]}', "is a list"),
    ("j.csv", b"left,right\nones,twos\n", "Several columns .* left, right"),
    ("k.csv", b"Prompt,prompt\na,b\n", "Several columns .* Prompt, prompt"),
    ("l.csv", b"prompt,id\n,1\n  ,2\n", "holds no prompt: every row is empty"),
    ("m.csv", b"prompt\n", "holds no prompt"),
    ("n.csv", b"id,prompt\n1,a,b\n", "line 2: 3 fields, but the header has 2"),
    ("o.csv", b'prompt\n"a\n', "line 2: not readable"),
    ("p.csv", "prompt\ncaf\u00e9\n".encode("latin-1"), "line 2: the byte 0xe9 is not UTF-8"),
    ("q.txt", "caf\u00e9".encode("utf-16"), "written in UTF-16"),
    ("r.parquet", b"PAR1 no", "not readable as Parquet"),
    ("s.parquet", b"", "is empty"),
    ("t.jsonl", b'{"id": 1}\n{"n": 2}', r"no column of text \(its columns: id, n\)"),
    ("u.json", b"[]", "holds no prompt"),
]


@pytest.mark.parametrize(("name", "content", "message"), BAD, ids=[name for name, *_ in BAD])
def test_bad_files_are_refused_with_cause_and_remedy(tmp_path, name, content, message):
    with pytest.raises(PromptError, match=message) as caught:
        load_prompts(write(tmp_path, name, content), "harmful")
    assert name in caught.value.cause
    assert caught.value.cause.endswith(".")
    assert caught.value.remedy.endswith(".")
    assert caught.value.exit_code == 2


def test_missing_files_folders_and_columns(tmp_path):
    with pytest.raises(PromptError, match="There is no file"):
        load_prompts(str(tmp_path / "none.csv"), "harmful")
    with pytest.raises(PromptError, match="There is no file 'advbench'"):
        load_prompts("advbench", "harmful")
    with pytest.raises(PromptError, match="is a folder"):
        load_prompts(tmp_path, "harmful")
    path = write(tmp_path, "a.csv", "id,prompt\n1,a\n")
    with pytest.raises(PromptError, match=r"no column 'goal'. Name one of its columns: id, prompt"):
        load_prompts(path, "harmful", "goal")
