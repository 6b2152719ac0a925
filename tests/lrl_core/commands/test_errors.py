from jsonargparse import ArgumentParser

from lrl_core.commands import errors


def chained():
    try:
        try:
            {}["key"]
        except KeyError as error:
            raise ValueError("Part: got x; expected y.") from error
    except ValueError as error:
        return error


def test_a_parts_own_error_is_not_unwrapped_further():
    assert errors.building(chained()) == "Part: got x; expected y."


def test_other_types_say_what_they_are():
    assert errors.building(FileNotFoundError("no a.txt")) == "FileNotFoundError: no a.txt"


def test_jsonargparse_is_unwrapped():
    class Part:
        def __init__(self, size: int = 1):
            self.size = size

    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--part", type=Part | None)
    parser.add_argument("--n", type=int)
    said = []
    for arguments in (["--n", "x"], ["--m", "1"]):
        try:
            parser.parse_args(arguments)
        except Exception as error:
            said.append(errors.parsing(error, "lrl fit"))
    assert said[0].startswith('Parser key "n": ')
    assert said[0].endswith("What this part takes: lrl fit --n.help NAME")
    assert said[1].endswith("Every option: lrl fit --help")
