"""The command from outside: what goes to stdout, what to stderr, which exit code; on an engine without models."""

from __future__ import annotations

import errno
import inspect
import io
import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from command import Outcome
from fake_engine import FakeEngine

import hoarfrost
from hoarfrost.cli import doctor, train
from hoarfrost.cli.demo import DemoPrompts, split_piece
from hoarfrost.engine import Piece
from hoarfrost.models import SHIPPED
from hoarfrost.training.settings import DrafterTrainingConfig


def assert_refused(outcome: Outcome, *said: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert "Traceback" not in outcome.err
    for words in said:
        assert words in outcome.err


class TestTop:
    def test_version(self, call: Any) -> None:
        assert call("--version").out == f"hoarfrost {hoarfrost.__version__}\n"

    @pytest.mark.parametrize("arguments", [("--help",), ("--version",), ("bench", "--help")])
    def test_help_does_not_wait_for_torch(self, arguments: tuple[str, ...]) -> None:
        code = (
            "import sys\nfrom hoarfrost.cli import main\n"
            f"sys.argv = {['hoarfrost', *arguments]!r}\n"
            "try:\n    main()\nexcept SystemExit:\n    pass\n"
            "slow = {'torch', 'transformers', 'numpy'} & set(sys.modules)\nsys.exit(f'imported {slow}' if slow else 0)"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    def test_help_lists_the_verbs(self, call: Any) -> None:
        said = call("--help").out
        for verb in ("run", "bench", "train", "doctor", "demo"):
            assert verb in said

    def test_help_of_a_verb_shows_the_dataclasses_defaults(self, call: Any) -> None:
        assert "Default: 256." in " ".join(call("run", "--help").out.replace("│", " ").split())
        assert "Default: ar, chain, tree." in " ".join(call("bench", "decode", "--help").out.replace("│", " ").split())

    def test_unknown_verb_and_option(self, call: Any) -> None:
        assert_refused(call("sing"), "sing")
        assert_refused(call("run", "tiny", "Hi", "--temprature", "1"), "--temprature")


class TestRun:
    def test_text_goes_to_stdout_and_one_line_to_stderr(self, call: Any, engine: FakeEngine) -> None:
        outcome = call("run", "tiny", "Hello", "--max-new-tokens", "12")
        assert outcome.code == 0
        assert len(outcome.out) == 12 + 1
        assert outcome.out.endswith("\n")
        assert outcome.err.count("\n") == 1
        assert "12 tokens" in outcome.err
        assert "8 tokens from the tree" in outcome.err
        assert "ended by length" in outcome.err
        assert engine.prompts == ["<user>Hello<assistant>"]
        expected = {"model": "tiny", "drafter": "auto", "dtype": "auto", "device": "auto", "weights": "auto"}
        assert engine.loaded_with == expected  # type: ignore[attr-defined]

    def test_json_is_one_object_with_everything(self, call: Any, engine: FakeEngine) -> None:
        outcome = call("run", "tiny", "Hello", "--max-new-tokens", "12", "--json", "-")
        said = json.loads(outcome.out)
        assert outcome.out.count("\n") == 1
        assert said["text"] == engine.tokenizer.decode(said["token_ids"])
        assert said["finish_reason"] == "length"
        assert said["statistics"]["num_tokens"] == 12
        assert said["statistics"]["tau"] == pytest.approx(11 / 3)
        assert said["num_from_tree"] == 8

    def test_json_in_a_file_leaves_the_text_on_stdout(self, call: Any, engine: FakeEngine, tmp_path: Path) -> None:
        (tmp_path / "link.json").symlink_to(tmp_path / "real.json")
        outcome = call("run", "tiny", "Hello", "--max-new-tokens", "12", "--json", str(tmp_path / "link.json"))
        assert json.loads((tmp_path / "real.json").read_text(encoding="utf-8"))["text"] == outcome.out.removesuffix("\n")
        assert (tmp_path / "link.json").is_symlink()

    def test_sampling_options_reach_the_engine(self, call: Any, engine: FakeEngine) -> None:
        options = "--temperature 0.7 --top-k 5 --top-p 0.9 --min-p 0.1 --seed 3 --max-new-tokens 4 --min-new-tokens 2 --stop ! --stop ?"
        assert call("run", "tiny", "Hi", *options.split()).code == 0
        params = engine.params[0]
        assert (params.temperature, params.top_k, params.top_p, params.min_p, params.seed) == (0.7, 5, 0.9, 0.1, 3)
        assert (params.max_new_tokens, params.min_new_tokens, params.stop) == (4, 2, ("!", "?"))

    @pytest.mark.parametrize(
        ("options", "mode"),
        [("", "tree"), ("--mode ar", "ar"), ("--mode chain", "chain"), ("--mode tree", "tree"), ("--tree-budget 0", "ar")],
    )
    def test_mode(self, options: str, mode: str, call: Any, engine: FakeEngine) -> None:
        assert call("run", "tiny", "Hi", *options.split()).code == 0
        assert engine.modes == [mode]

    def test_chat_template_is_used_where_there_is_one_unless_told_otherwise(self, call: Any, engine: FakeEngine) -> None:
        call("run", "tiny", "Hi")
        call("run", "tiny", "Hi", "--no-chat")
        call("run", "tiny", "Hi", "--system", "Be brief.")
        engine.tokenizer.chat_template = None
        call("run", "tiny", "Hi")
        assert engine.prompts == ["<user>Hi<assistant>", "Hi", "<system>Be brief.<user>Hi<assistant>", "Hi"]

    def test_prompt_from_standard_input_and_from_a_file(
        self, call: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from stdin")))
        (tmp_path / "prompt.txt").write_text("from a file", encoding="utf-8")
        assert call("run", "tiny", "-", "--no-chat").code == 0
        assert call("run", "tiny", "--prompt-file", str(tmp_path / "prompt.txt"), "--no-chat").code == 0
        assert call("run", "tiny", "and a question", "--prompt-file", str(tmp_path / "prompt.txt"), "--no-chat").code == 0
        assert engine.prompts == ["from stdin", "from a file", "from a file\n\nand a question"]

    @pytest.mark.parametrize("as_json", [False, True])
    def test_ctrl_c_keeps_what_was_decoded(self, as_json: bool, call: Any, engine: FakeEngine) -> None:
        engine.interrupt_after = 9
        outcome = call("run", "tiny", "Hi", *(["--json", "-"] if as_json else []))
        assert outcome.code == 130
        assert "interrupted after 9 tokens" in outcome.err
        assert "Traceback" not in outcome.err
        text = json.loads(outcome.out)["text"] if as_json else outcome.out.removesuffix("\n")
        assert len(text) == 9
        assert outcome.out.endswith("\n")

    def test_kv_budget_is_the_budget_of_the_ice_store(self, call: Any, engine: FakeEngine) -> None:
        assert call("run", "tiny", "Hi", "--kv-budget", "128").code == 0
        assert engine.loaded_with["cache"].budget == 128  # type: ignore[attr-defined]

    def test_weights_are_handed_on(self, call: Any, engine: FakeEngine) -> None:
        assert call("run", "tiny", "Hi", "--weights", "int8").code == 0
        assert engine.loaded_with["weights"] == "int8"  # type: ignore[attr-defined]

    def test_drafter_none_decodes_without(self, call: Any, engine: FakeEngine) -> None:
        call("run", "tiny", "Hi", "--drafter", "none")
        assert engine.loaded_with["drafter"] is None  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["unknown", "Hi"], "No model 'unknown'"),
            (["tiny"], "Give a prompt"),
            (["tiny", "Hi", "--kv-budget", "20"], "A budget of 20 rows (--kv-budget) is too small; give at least 48"),
            (["tiny", "--prompt-file", "no/such/file.txt"], "no/such/file.txt cannot be read"),
            (["tiny", "Hi", "--temperature", "nan"], "nan"),
            (["tiny", "Hi", "--temperature", "-1"], "-1"),
            (["tiny", "Hi", "--top-p", "1.5"], "1.5"),
            (["tiny", "Hi", "--tree-budget", "1025"], "1025"),
            (["tiny", "Hi", "--tree-budget", "-1"], "-1"),
            (["tiny", "Hi", "--mode", "trie"], "Unknown mode 'trie'"),
            (["tiny", "Hi", "--mode", "ar", "--tree-budget", "8"], "does not go with --mode ar"),
            (["tiny", "Hi", "--mode", "chain", "--drafter", "none"], "--drafter none takes none"),
            (["tiny", "Hi", "--system", "Be brief.", "--no-chat"], "--system needs the chat template"),
            (["tiny", "Hi", "--max-new-tokens", "0"], "0"),
            (["tiny", "Hi", "--max-new-tokens", "many"], "--max-new-tokens"),
            (["tiny", "Hi", "--stop", ""], "stop"),
        ],
    )
    def test_bad_input_is_a_sentence_and_exit_code_2(self, arguments: list[str], said: str, call: Any, engine: FakeEngine) -> None:
        assert_refused(call("run", *arguments), said)

    def test_a_prompt_file_that_is_not_text(self, call: Any, engine: FakeEngine, tmp_path: Path) -> None:
        (tmp_path / "prompt.bin").write_bytes(b"\xff\xfe\x00")
        assert_refused(call("run", "tiny", "--prompt-file", str(tmp_path / "prompt.bin")), "not UTF-8")


class TestBench:
    @pytest.fixture
    def data_dir(self, tmp_path: Path) -> Path:
        (tmp_path / "eval").mkdir()
        lines = "".join(json.dumps({"question": f"Question {index}"}) + "\n" for index in range(4))
        (tmp_path / "eval" / "gsm8k.jsonl").write_text(lines, encoding="utf-8")
        return tmp_path

    def options(self, data_dir: Path) -> list[str]:
        return ["bench", "decode", "tiny", "--sets", "gsm8k", "--data-dir", str(data_dir), "--max-new-tokens", "9"]

    def test_writes_the_result_and_prints_its_tables(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        path = data_dir / "result.json"
        outcome = call(*self.options(data_dir), "--limit", "3", "--budgets", "8,auto", "--temperature", "0,0.7", "--json", str(path))
        assert outcome.code == 0
        result = json.loads(path.read_text(encoding="utf-8"))
        assert len(result["records"]) == 3 * 4 * 2
        assert len(result["summary"]) == 4 * 2
        assert result["command"][:3] == ["hoarfrost", "bench", "decode"]
        assert "DDTree" in outcome.out
        assert outcome.err == ""
        printed = call("bench", "report", str(path))
        assert "DDTree" in printed.out
        assert "| gsm8k | 0 | AR |" in call("bench", "report", str(path), "--markdown").out

    def test_goes_on_after_an_interruption(self, call: Any, engine: FakeEngine, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = data_dir / "result.json"
        generate, calls = engine.generate, iter(range(100))

        def interrupted(*arguments: Any, **options: Any) -> Any:
            if next(calls) == 10:
                raise KeyboardInterrupt
            return generate(*arguments, **options)

        monkeypatch.setattr(engine, "generate", interrupted)
        outcome = call(*self.options(data_dir), "--json", str(path))
        assert outcome.code == 130
        assert "goes on from here" in outcome.err
        assert not path.exists()
        outcome = call(*self.options(data_dir), "--json", str(path))
        assert outcome.code == 0
        assert "2 prompts are already measured" in outcome.err
        assert len(json.loads(path.read_text(encoding="utf-8"))["records"]) == 4 * 3

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            (["--sets", "gsm9k"], "Unknown prompt set 'gsm9k'"),
            (["--sets", "math500"], "math500.jsonl cannot be read"),
            (["--limit", "0"], "limit of prompts per set is 0"),
            (["--budgets", "16,x"], "--budgets takes a number of nodes or `auto`"),
            (["--budgets", "2000"], "2000"),
            (["--temperature", "nan"], "nan"),
            (["--modes", "ar,trie"], "Unknown mode 'trie'"),
        ],
    )
    def test_bad_input(self, changes: list[str], said: str, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        assert_refused(call(*self.options(data_dir), *changes), said)

    @pytest.mark.parametrize("options", [[], ["--sets", "gsm8k,mbpp"]])
    def test_a_set_without_a_prompt(self, options: list[str], call: Any, engine: FakeEngine, data_dir: Path) -> None:
        (data_dir / "eval" / "mbpp_sanitized.json").write_text('[{"task_id": 2, "prompt": "of another split"}]', encoding="utf-8")
        if not options:
            (data_dir / "eval" / "gsm8k.jsonl").write_text("\n", encoding="utf-8")
        assert_refused(call(*self.options(data_dir), *options), "has no prompt")
        assert engine.prompts == []

    def test_prompts_of_which_none_fits(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        engine.target.max_positions = 20
        path = data_dir / "made" / "result.json"
        assert_refused(call(*self.options(data_dir), "--json", str(path)), "Nothing was measured: of 4 prompts 4 do not fit")
        assert list(path.parent.iterdir()) == []

    def test_a_result_file_that_is_a_folder(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        assert_refused(call(*self.options(data_dir), "--json", str(data_dir)), f"{data_dir} cannot be written: it is a folder")
        assert engine.prompts == []

    def test_a_result_file_that_cannot_be_written(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        path = data_dir / "eval" / "gsm8k.jsonl" / "out.json"
        assert_refused(call(*self.options(data_dir), "--json", str(path)), f"{path} cannot be written")

    @pytest.mark.parametrize(
        "arguments", [("bench", "index"), ("bench", "cache", "--shape", "qwen3-0.6b"), ("inspect", "cache", "unknown", "What?")]
    )
    def test_every_other_result_file_that_is_a_folder(
        self, arguments: tuple[str, ...], call: Any, engine: FakeEngine, tmp_path: Path
    ) -> None:
        assert_refused(call(*arguments, "--json", str(tmp_path)), f"{tmp_path} cannot be written: it is a folder")

    def test_a_dash_prints_the_result_and_the_tables_go_to_stderr(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        outcome = call(*self.options(data_dir), "--json", "-")
        assert outcome.code == 0
        assert len(json.loads(outcome.out)["records"]) == 4 * 3
        assert "DDTree" in outcome.err

    def test_a_result_that_cannot_be_kept_is_printed_and_the_journal_stays(
        self, call: Any, engine: FakeEngine, data_dir: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = data_dir / "result.json"

        def full(place: Path, value: Any) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(place))

        with monkeypatch.context() as patched:
            patched.setattr("hoarfrost.evaluation.common.journal.write_json", full)
            outcome = call(*self.options(data_dir), "--json", str(path))
        assert outcome.code == 1
        assert "DDTree" in outcome.out
        assert f"{path} could not be written: No space left" in outcome.err
        assert "the same command goes on" in outcome.err
        engine.prompts.clear()
        assert call(*self.options(data_dir), "--json", str(path)).code == 0
        assert engine.prompts == [], "everything was measured already"
        assert len(json.loads(path.read_text(encoding="utf-8"))["records"]) == 4 * 3

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
    def test_every_command_says_that_the_disk_is_full(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        for command in (self.options(data_dir), ["bench", "index", "--keys", "256", "--repeats", "1"], ["run", "tiny", "Hello"]):
            outcome = call(*command, "--json", "/dev/full")
            assert outcome.code == 1, outcome.err
            assert outcome.out, "what was measured is printed all the same"
            assert "Traceback" not in outcome.err
            assert "/dev/full could not be written: No space left" in outcome.err

    def test_modes_without_a_drafter(self, call: Any, engine: FakeEngine, data_dir: Path) -> None:
        engine.drafter = None
        assert_refused(call(*self.options(data_dir)), "'chain' needs a drafter")

    @pytest.mark.parametrize(("content", "said"), [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "is no result")])
    def test_report_of_what_is_no_result(self, content: str | None, said: str, call: Any, tmp_path: Path) -> None:
        path = tmp_path / "result.json"
        if content is not None:
            path.write_text(content, encoding="utf-8")
        assert_refused(call("bench", "report", str(path)), said)


class TestDemo:
    def test_ships_prompts_of_four_kinds_with_source_and_licence(self) -> None:
        shipped = DemoPrompts.load()
        assert len(shipped.prompts) == 12
        assert [prompt.set_name for prompt in shipped.first_of_each_kind()] == ["gsm8k", "math500", "humaneval", "mt_bench"]

    def test_streams_every_kind_then_compares_the_modes(self, call: Any, engine: FakeEngine) -> None:
        outcome = call("demo")
        assert outcome.code == 0
        assert outcome.out.count("from the tree") == 4
        for name in ("AR", "DFlash chain", "DDTree", "speed-up", "mt_bench"):
            assert name in outcome.out

    def test_without_a_drafter_it_compares_plain_decoding_and_trees_of_the_text(self, call: Any, engine: FakeEngine) -> None:
        engine.drafter = None
        outcome = call("demo")
        assert outcome.code == 0
        assert "no drafter" in outcome.out
        assert "DDTree" in outcome.out
        assert set(engine.modes) == {"ar", "tree"}

    def test_what_the_tree_guessed_is_marked_without_a_terminal_too(self, call: Any, engine: FakeEngine) -> None:
        out = call("demo").out
        assert "In « »: what the tree guessed right" in out
        assert re.search("«[a-z]{3}»[a-z]«[a-z]{3}»", out)

    def test_a_model_that_cannot_be_loaded_is_refused(self, call: Any, engine: FakeEngine) -> None:
        assert_refused(call("demo", "unknown"), "No model 'unknown'.")

    def test_interrupted(self, call: Any, engine: FakeEngine) -> None:
        engine.interrupt_after = 5
        assert call("demo").code == 130

    def test_pieces_are_parted_where_the_text_allows(self, engine: FakeEngine) -> None:
        ids = engine.tokenizer("abc")["input_ids"]
        assert split_piece(engine.tokenizer, Piece("abc", ids, 2)) == ("ab", "c")
        assert split_piece(engine.tokenizer, Piece("abc", ids, 0)) == ("", "abc")
        assert split_piece(engine.tokenizer, Piece("held back", ids, 2)) == ("held back", "")


class TestDoctor:
    def test_reports_and_says_what_does_not_work(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def breaks() -> Any:
            yield doctor.Finding("first", doctor.OK, "fine")
            raise RuntimeError("no such kernel")

        monkeypatch.setattr(doctor, "CHECKS", (doctor.versions, doctor.machine, doctor.precision, doctor.prompt_sets))
        outcome = call("doctor")
        assert outcome.code == 0
        assert "torch" in outcome.out
        assert "float32" in outcome.out or "bfloat16" in outcome.out
        monkeypatch.setattr(doctor, "CHECKS", (breaks,))
        outcome = call("doctor")
        assert outcome.code == 1
        assert "fine" in outcome.out
        assert "RuntimeError: no such kernel" in outcome.out
        assert "Does not work here: breaks." in outcome.err

    def test_missing_weights_are_a_fault_with_a_remedy(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        pair = SimpleNamespace(target=tmp_path, drafter=tmp_path)
        monkeypatch.setattr("hoarfrost.models.SHIPPED", {"tiny": pair})
        [finding] = doctor.examine(doctor.shipped_models)
        assert finding.state == doctor.FAULT
        assert "recipes/tiny" in finding.detail

    def test_a_model_to_be_fetched_is_no_fault_and_is_not_fetched(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr("hoarfrost.models.SHIPPED", {"smollm2": SHIPPED["smollm2"]})
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        [finding] = doctor.examine(doctor.shipped_models)
        assert finding.state == doctor.NOTE
        assert "fetches 93 MB" in finding.detail
        path = SHIPPED["smollm2"].target
        path.parent.mkdir(parents=True)
        with path.open("wb") as file:
            file.truncate(98_362_432)
        [finding] = doctor.examine(doctor.shipped_models)
        assert finding.state == doctor.OK
        assert str(path) in finding.detail

    @pytest.mark.parametrize(("flips", "state"), [("", "ok"), ("tree", "FAULT")])
    def test_decoding_compares_the_modes(self, flips: str, state: str, engine: FakeEngine) -> None:
        engine.flips = flips
        assert doctor.decoding("tiny").state == state


class TestTrain:
    def test_options_are_the_fields_of_the_settings(self, call: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        options = inspect.signature(train.drafter).parameters
        assert set(options) == {one.name for one in fields(DrafterTrainingConfig)}

    def test_passes_on_what_was_given_and_nothing_else(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[DrafterTrainingConfig] = []

        def interrupted(config: DrafterTrainingConfig) -> Any:
            seen.append(config)
            raise KeyboardInterrupt

        monkeypatch.setattr("hoarfrost.training.train_drafter", interrupted)
        arguments = "--data a.jsonl --data b.jsonl --out made --resume --temperatures 0,1 --target-layer-ids 1,3 --no-regenerate"
        outcome = call("train", "drafter", "tiny", *arguments.split(), "--num-epochs", "2")
        assert outcome.code == 130
        assert "--resume goes on" in outcome.err
        expected = DrafterTrainingConfig(
            target="tiny",
            data=(Path("a.jsonl"), Path("b.jsonl")),
            out=Path("made"),
            resume=True,
            temperatures=(0.0, 1.0),
            target_layer_ids=(1, 3),
            regenerate=False,
            num_epochs=2,
        )
        assert seen == [expected]

    def test_bad_input(self, call: Any) -> None:
        assert_refused(call("train", "drafter", "tiny", "--data", "a", "--out", "b", "--temperatures", "0,warm"), "--temperatures")
        assert_refused(call("train", "drafter", "tiny", "--data", "a", "--out", "b", "--num-layers", "0"), "num_layers is 0")


class TestHelp:
    COMMANDS = (
        *((verb,) for verb in ("demo", "run", "doctor", "drafters", "bench", "eval", "inspect", "train", "plot")),
        *(("bench", verb) for verb in ("decode", "report", "cache", "index")),
        *(("eval", verb) for verb in ("retrieval", "longbench", "loss", "report")),
        ("inspect", "cache"),
        ("inspect", "drafter"),
        ("train", "drafter"),
        ("train", "selector"),
    )

    @pytest.mark.parametrize("columns", ["80", "120"])
    @pytest.mark.parametrize("command", [(), *COMMANDS], ids=" ".join)
    def test_is_whole_and_plain(self, command: tuple[str, ...], columns: str, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", columns)
        said = call(*command, "--help").out
        assert said
        for unwanted in ("…", "<bool>", "list[", "[default"):
            assert unwanted not in said
        assert max(map(len, said.splitlines())) <= int(columns)

    def test_names_all_caches_and_tasks(self, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        said = call("eval", "retrieval", "--help").out
        assert all(name in said for name in ("snapkv", "ice-estimate", "quest", "passkey", "variables", "common"))
        assert "qasper" in call("eval", "longbench", "--help").out
        assert "humaneval" in call("bench", "decode", "--help").out

    def test_commands_stand_in_the_order_of_need(self, call: Any) -> None:
        said = call("--help").out
        places = [said.index(f"│ {name} ") for name in ("demo", "run", "doctor", "drafters", "bench", "eval", "inspect", "train", "plot")]
        assert places == sorted(places)


def test_a_terminal_is_told_at_once_what_is_loaded(call: Any, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Loading" not in call("run", "tiny", "Hi").err
    monkeypatch.setattr("hoarfrost.cli.options.sys.stderr.isatty", lambda: True)
    assert call("run", "tiny", "Hi").err.startswith("Loading tiny ...\n")
