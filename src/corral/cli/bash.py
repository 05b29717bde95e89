"""Completion in bash, names with colons and old versions of bash included."""

from __future__ import annotations

import os
from typing import ClassVar

from click.shell_completion import CompletionItem, ShellComplete, add_completion_class, split_arg_string

# Bash takes a colon for a break between words, and replaces only what stands after the last one. So the program gets
# the line as it was typed, and answers with what belongs after the last colon. Each line is `kind,text`.
_SCRIPT = """\
%(complete_func)s() {
  local line kind text IFS=$'\\n'
  COMPREPLY=()
  for line in $(%(complete_var)s=bash_complete CORRAL_COMPLETE_LINE="${COMP_LINE:0:COMP_POINT}" \
      CORRAL_COMPLETE_BREAKS="$COMP_WORDBREAKS" "$1" 2>/dev/null); do
    kind=${line%%%%,*} text=${line#*,}
    case $kind in
      dir) COMPREPLY+=($(compgen -d -- "${COMP_WORDS[COMP_CWORD]}")) ;;
      file) COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")) ;;
      *) COMPREPLY+=("$text") ;;
    esac
  done
}
complete -o nosort -F %(complete_func)s %(prog_name)s 2>/dev/null || complete -F %(complete_func)s %(prog_name)s
"""


class Bash(ShellComplete):
    """Reads the line up to the cursor, and answers one candidate a line."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = _SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        line = os.environ.get("CORRAL_COMPLETE_LINE", "")
        words = split_arg_string(line)
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        return words[1:], incomplete

    def format_completion(self, item: CompletionItem) -> str:
        _, incomplete = self.get_completion_args()
        value = str(item.value)
        if ":" in os.environ.get("CORRAL_COMPLETE_BREAKS", ""):
            value = value[incomplete.rfind(":") + 1 :]
        return f"{item.type},{value}"


add_completion_class(Bash)
