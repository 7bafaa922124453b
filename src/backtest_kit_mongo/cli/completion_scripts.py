"""``completion``: print the script that makes a shell complete this command."""

from __future__ import annotations

import os
from pathlib import PurePath
from typing import Annotated, Final, Literal, get_args

import typer

from ..errors import InvalidValueError
from .completion import FILES, VARIABLE

__all__ = ["SCRIPTS", "print_completion"]

Shell = Literal["bash", "zsh", "fish"]

_BASH: Final = """\
_backtest_kit_mongo() {
    local value help suffix
    COMPREPLY=()
    while IFS=$'\\t' read -r value help; do
        case $value in
            @FILES@*)
                suffix=${value#@FILES@}
                while IFS= read -r value; do
                    [[ -d $value || -z $suffix || $value == *"${suffix# }" ]] && COMPREPLY+=("$value")
                done < <(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")
                compopt -o filenames 2>/dev/null ;;
            *)
                COMPREPLY+=("$value")
                [[ $value == *[=,] ]] && compopt -o nospace 2>/dev/null ;;
        esac
    done < <(@VARIABLE@=bash COMP_WORDBREAKS="$COMP_WORDBREAKS" "$1" "${COMP_LINE:0:COMP_POINT}" 2>/dev/null)
}
complete -F _backtest_kit_mongo backtest-kit-mongo
"""

_ZSH: Final = """\
#compdef backtest-kit-mongo
_backtest_kit_mongo() {
    local line value help
    local -a described open
    for line in "${(@f)$(@VARIABLE@=zsh "${words[1]}" "${(@Q)words[2,CURRENT]}" 2>/dev/null)}"; do
        value=${line%%$'\\t'*} help=${line#*$'\\t'}
        case $value in
            "") ;;
            @FILES@) _files ;;
            @FILES@*) _files -g "*${value#@FILES@ }" ;;
            *[=,]) open+=("${value//:/\\\\:}${help:+:$help}") ;;
            *) described+=("${value//:/\\\\:}${help:+:$help}") ;;
        esac
    done
    (( $#described )) && _describe -V value described
    (( $#open )) && _describe -V value open -S ''
    return 0
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _backtest_kit_mongo "$@"
else
    compdef _backtest_kit_mongo backtest-kit-mongo
fi
"""

_FISH: Final = """\
function __backtest_kit_mongo
    set -l words (commandline -opc) (commandline -ct)
    for line in (@VARIABLE@=fish $words[1] $words[2..-1] 2>/dev/null)
        set -l value (string split \\t -- $line)[1]
        if test "$value" = "@FILES@"
            __fish_complete_path $words[-1]
        else if string match -q "@FILES@ *" -- $value
            __fish_complete_suffix (string replace "@FILES@ " "" -- $value)
        else
            echo $line
        end
    end
end
complete --no-files --keep-order --command backtest-kit-mongo --arguments "(__backtest_kit_mongo)"
"""

SCRIPTS: Final[dict[str, str]] = {
    shell: script.replace("@FILES@", FILES).replace("@VARIABLE@", VARIABLE)
    for shell, script in (("bash", _BASH), ("zsh", _ZSH), ("fish", _FISH))
}


def print_completion(
    shell: Annotated[
        Shell | None, typer.Argument(metavar="bash|zsh|fish", show_default="that of $SHELL", help="Shell to complete in.")
    ] = None,
) -> None:
    """Print the script that makes a shell complete this command: commands, options, domains, stores, intervals, files.

    It connects to no server. After the name of a strategy file it also completes the parameters and strategies of that file, without
    running it.

    Examples:

        $ backtest-kit-mongo completion bash > ~/.local/share/bash-completion/completions/backtest-kit-mongo

        $ backtest-kit-mongo completion zsh > "${fpath[1]}/_backtest-kit-mongo"

        $ backtest-kit-mongo completion fish > ~/.config/fish/completions/backtest-kit-mongo.fish
    """
    name = PurePath(os.environ.get("SHELL", "")).name if shell is None else shell
    if name not in SCRIPTS:
        raise InvalidValueError(f"there is no completion for the shell {name!r}", hint=f"pass one of {', '.join(get_args(Shell))}")
    typer.echo(SCRIPTS[name], nl=False)
