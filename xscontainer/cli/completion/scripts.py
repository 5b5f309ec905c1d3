"""The part of the completion that runs in the shell. That of bash and fish is from the library argcomplete."""

PROGRAM = "xscontainer"

# The library's part for zsh types a space after "VM/", at least in the version for CPython 3.6.
_ZSH = r"""#compdef xscontainer
_xscontainer() {
    local -a open whole
    local answer line="${(j: :)words[1,CURRENT-1]} $PREFIX"
    answer=$(_ARGCOMPLETE=1 _ARGCOMPLETE_SHELL=zsh COMP_LINE="$line" COMP_POINT=${#line} \
        "${words[1]}" 8>&1 9>/dev/null >/dev/null 2>&1 </dev/null)
    local candidate
    for candidate in ${(ps:\013:)answer}; do
        if [[ ${candidate%%:*} == *[/=] ]]; then
            open+=("$candidate")
        else
            whole+=("$candidate")
        fi
    done
    _describe xscontainer whole -- open -S ''
}
if [[ $funcstack[1] == _xscontainer ]]; then
    _xscontainer "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _xscontainer xscontainer
fi
"""


def script(shell: str) -> str:
    """Return the script for bash, zsh or fish."""
    if shell == "zsh":
        return _ZSH
    from argcomplete.shell_integration import shellcode  # 12 ms of the start

    code: str = shellcode([PROGRAM], use_defaults=False, shell=shell)
    return code.lstrip()
