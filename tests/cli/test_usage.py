"""Bad usage: each with exit code 2, a sentence, the next command, and nothing done."""

import pytest

BAD = [
    ("rnu", ["rnu"], "'rnu'", "'run'"),
    ("no such flag", ["run", "--devise", "cpu"], "--devise", "--device"),
    ("flag without value", ["run", "--device"], "--device", "hotart-bench --help"),
    ("unknown suite", ["run", "mni"], "'mni'", "mini"),
    ("suite file that is not there", ["run", "nope.toml"], "nope.toml", "hotart-bench list suites"),
    ("suite that is no toml", ["run", "two.txt"], "two.txt", ".toml"),
    ("suite that is a folder", ["run", "."], "folder without run.json", "hotart-bench list suites"),
    ("run folder as a suite", ["run", "RUN"], "takes a suite", "hotart-bench run fake -o"),
    ("two suites", ["run", "own.toml", "mini"], "unexpected", "hotart-bench run --help"),
    ("negative limit", ["run", "own.toml", "--limit", "-1"], "--limit", "at least 1"),
    ("limit of nothing", ["run", "own.toml", "--limit", "0"], "--limit", "at least 1"),
    ("limit in words", ["run", "own.toml", "--limit", "few"], "--limit", "hotart-bench run --help"),
    ("unknown variant", ["run", "own.toml", "--variants", "spi"], "'spi'", "'spo'"),
    ("no variant", ["run", "own.toml", "--variants", ""], "--variants", "empty name"),
    ("doubled variant", ["run", "own.toml", "--variants", "spo,spo"], "--variants", "twice"),
    ("unknown metric", ["run", "own.toml", "--metrics", "saturatoin"], "'saturatoin'", "saturation"),
    ("doubled metric", ["run", "own.toml", "--metrics", "contrast,contrast"], "--metrics", "twice"),
    ("unknown device", ["run", "own.toml", "--device", "cudo"], "'cudo'", "'cuda'"),
    ("device number in words", ["run", "own.toml", "--device", "cuda:one"], "'cuda:one'", "cuda:<number>"),
    (
        "weights that are not there",
        ["run", "own.toml", "--weights-dir", "nowhere"],
        "nowhere",
        "--weights-dir",
    ),
    ("stage without a run", ["score"], "RUN_OR_SUITE", "hotart-bench score --help"),
    ("output for a run folder", ["score", "RUN", "-o", "x"], "-o goes with a suite", ""),
    ("limit for a run folder", ["render", "RUN", "--limit", "2"], "--limit goes with a suite", ""),
    ("flag of another verb", ["report", "RUN", "--device", "cpu"], "--device", "hotart-bench report --help"),
    ("compare without a run", ["compare"], "RUN", "hotart-bench compare --help"),
    ("run that is not there", ["compare", "nowhere"], "nowhere", "no run"),
    ("run that is a file", ["compare", "two.txt"], "two.txt", "no run"),
    ("run with itself", ["compare", "RUN", "RUN"], "itself", ""),
    ("pair without colon", ["compare", "RUN", "--pairs", "spo"], "'spo'", "spo:base"),
    ("pair of three", ["compare", "RUN", "--pairs", "spo:dpo:base"], "'spo:dpo:base'", "spo:base"),
    ("half a pair", ["compare", "RUN", "--pairs", "spo:"], "'spo:'", "spo:base"),
    ("pair of unknowns", ["compare", "RUN", "--pairs", "spo:bsae"], "'bsae'", "'base'"),
    ("pair with itself", ["compare", "RUN", "--pairs", "spo:spo"], "'spo'", "itself"),
    ("the old --json", ["compare", "RUN", "--json"], "--format json", "hotart-bench compare "),
    ("unknown form of tables", ["compare", "RUN", "--format", "tex"], "'tex'", "did you mean 'latex'"),
    ("unknown tag", ["compare", "RUN", "--tag", "portriat"], "'portriat'", "'portrait'"),
    ("metric that the run has not", ["compare", "RUN", "--metrics", "mini-clap"], "'mini-clap'", "mini-clip"),
    ("unknown format", ["plot", "RUN", "--format", "gif"], "'gif'", "png, svg, pdf"),
    ("tiny dpi", ["plot", "RUN", "--dpi", "1"], "dpi", "50 to 1200"),
    ("list of nothing", ["list"], "suites, variants, metrics, prompts", "hotart-bench list --help"),
    ("list of unknowns", ["list", "metric"], "'metric'", "'metrics'"),
    ("unknown prompt set", ["list", "prompts", "peple"], "'peple'", "'people'"),
    ("prompt file that is not there", ["list", "prompts", "no.csv"], "no.csv", "no such file"),
    ("unknown suite's variants", ["list", "variants", "sdlx"], "'sdlx'", "sdxl"),
    ("doctor of an unknown suite", ["doctor", "mimi"], "'mimi'", "mini"),
]


@pytest.mark.parametrize(("arguments", "names", "helps"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_usage(arguments, names, helps, cli, stages, home, run_folder):
    before = sorted(home.rglob("*"))
    answer = cli(*(run_folder if argument == "RUN" else argument for argument in arguments))
    assert answer.code == 2
    assert answer.out == ""
    assert names in answer.err
    assert helps in answer.err
    assert "Traceback" not in answer.err
    assert len(answer.err.splitlines()) <= 2
    assert stages.calls == []
    assert sorted(home.rglob("*")) == before


def test_control_characters_of_an_argument_do_not_reach_the_terminal(cli, home):
    answer = cli("run", "a\x1b[2Jb")
    assert answer.code == 2
    assert "\x1b" not in answer.err
