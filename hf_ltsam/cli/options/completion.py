"""`ltsam completion`: a script with which bash or zsh complete commands, options and names.

    ltsam completion bash > ~/.local/share/bash-completion/completions/ltsam
    ltsam completion zsh > ~/.ltsam.zsh; echo 'source ~/.ltsam.zsh' >> ~/.zshrc

The script is text that is made once: neither a new shell nor a key press waits for an import.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from typing import Any

from hf_ltsam import LOSSES, METHODS
from hf_ltsam.cli.options.parser import OptionParser
from hf_ltsam.runs.recipes import recipe_names

SHELLS = ("bash", "zsh")

_FUNCTION = """\
_ltsam() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" words="" IFS=$' \\t\\n'
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands}"
    else
        case "$previous" in
{values}
        esac
        if [ -z "$words" ]; then
            case "${{COMP_WORDS[1]}}" in
{options}
            esac
            case "$word" in -*) ;; *) words="" ;; esac
        fi
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o bashdefault -o default -F _ltsam ltsam
"""
_ZSH = "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n"


def main(words: Sequence[str]) -> None:
    """`ltsam completion bash` or `zsh`."""
    parser = OptionParser(
        prog="ltsam completion",
        description="Print a script that completes commands, options, methods, losses and recipes.",
        epilog="For good: ltsam completion bash > ~/.local/share/bash-completion/completions/ltsam, or for zsh into a file "
        "that ~/.zshrc sources.",
    )
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL")
    print(script(parser.parse_args(words).shell), end="")


def script(shell: str) -> str:
    """The script for one of `SHELLS`."""
    from hf_ltsam.cli.main import COMMANDS

    named: dict[str, Iterable[str]] = {
        "methods|--method": METHODS,
        "--loss": LOSSES,
        "recipes|--config": recipe_names(),
        "completion": SHELLS,
    }
    options = {name: options_of(command) for name, command in COMMANDS.items() if name != "completion"}
    function = _FUNCTION.format(commands=_words(COMMANDS), values=_cases(named), options=_cases(options))
    return (_ZSH if shell == "zsh" else "") + function


def options_of(command: Any) -> list[str]:
    """The options that a command declares, read from its parser while it prints its help."""
    with redirect_stdout(io.StringIO()), suppress(SystemExit):
        command(["--help"])
    return sorted(f"--{name}" for name in OptionParser.declared if "-" not in name)


def _cases(words: Mapping[str, Iterable[str]]) -> str:
    return "\n".join(f'            {name}) words="{_words(each)}" ;;' for name, each in words.items())


def _words(names: Iterable[str]) -> str:
    return " ".join(names)
