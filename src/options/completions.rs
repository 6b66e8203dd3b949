//! What shells complete of a command line, written from the table of options.

use std::fmt::Write;

use super::table::{COMMANDS, OptionSpec, Value};

/// The shells that it is written for.
pub(super) const SHELLS: &[&str] = &["bash", "zsh", "fish"];

/// The completions of a shell.
pub(super) fn of(shell: &str) -> String {
    match shell {
        "bash" => bash(),
        "zsh" => zsh(),
        _ => fish(),
    }
}

/// What an option's value is, for a shell.
enum Completed {
    /// The option takes none.
    Nothing,
    Anything,
    File,
    Directory,
    Word(Vec<&'static str>),
    /// Words separated by commas.
    Words(Vec<&'static str>),
}

fn completed(option: &OptionSpec) -> Completed {
    match option.value {
        _ if option.names == "--probes" => {
            Completed::Words(std::iter::once(option.default).chain(lizm::probe::names()).collect())
        }
        Value::Flag => Completed::Nothing,
        Value::OneOf(words) => Completed::Word(words.to_vec()),
        Value::File => Completed::File,
        Value::Directory => Completed::Directory,
        Value::Text | Value::Number(..) | Value::Span(..) => Completed::Anything,
    }
}

fn bash() -> String {
    let commands = COMMANDS.iter().map(|command| command.name).collect::<Vec<_>>().join(" ");
    let (mut values, mut options) = (String::new(), String::new());
    for command in COMMANDS {
        for option in command.options() {
            let completes = match completed(option) {
                Completed::Nothing => continue,
                Completed::Anything => "return".to_owned(),
                Completed::File => "compopt -o filenames; COMPREPLY=($(compgen -f -- \"$word\")); return".to_owned(),
                Completed::Directory => {
                    "compopt -o filenames; COMPREPLY=($(compgen -d -- \"$word\")); return".to_owned()
                }
                Completed::Word(words) => format!("words='{}'", words.join(" ")),
                Completed::Words(words) => format!("list=${{word%\"${{word##*,}}\"}} words='{}'", words.join(" ")),
            };
            let cases: Vec<String> = option.names().map(|name| format!("'{} {name}'", command.name)).collect();
            let _ = writeln!(values, "    {}) {completes} ;;", cases.join("|"));
        }
        let names: Vec<&str> = command.options().flat_map(OptionSpec::names).collect();
        let _ = writeln!(options, "      {}) words='{}' ;;", command.name, names.join(" "));
    }
    format!(
        "_lizm() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} words= list=
  COMPREPLY=()
  if [ \"$COMP_CWORD\" = 1 ]; then
    COMPREPLY=($(compgen -W '{commands}' -- \"$word\"))
    return
  fi
  case \"${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}\" in
{values}  esac
  if [ -z \"$words\" ]; then
    case ${{COMP_WORDS[1]}} in
{options}    esac
    case $word in -*) ;; *) compopt -o default; return ;; esac
  fi
  COMPREPLY=($(compgen -P \"$list\" -W \"$words\" -- \"${{word#\"$list\"}}\"))
}}
complete -F _lizm lizm
"
    )
}

fn zsh() -> String {
    let commands: Vec<String> =
        COMMANDS.iter().map(|command| format!("    '{}:{}'", command.name, zsh_escaped(command.summary))).collect();
    let mut options = String::new();
    for command in COMMANDS {
        let _ = write!(options, "    {}) _arguments '*:file:_files'", command.name);
        for option in command.options() {
            let names: Vec<&str> = option.names().collect();
            let placeholder = zsh_escaped(option.placeholder);
            let value = match completed(option) {
                Completed::Nothing => String::new(),
                Completed::Anything => format!(":{placeholder}: "),
                Completed::File => format!(":{placeholder}:_files"),
                Completed::Directory => format!(":{placeholder}:_files -/"),
                Completed::Word(words) => format!(":{placeholder}:({})", words.join(" ")),
                Completed::Words(words) => format!(":{placeholder}:_values -s , {placeholder} {}", words.join(" ")),
            };
            let about = format!("[{}]{value}", zsh_escaped(first_line(option)));
            let _ = match names[..] {
                [name] => write!(options, " \\\n      '*{name}{about}'"),
                _ => write!(options, " \\\n      '*'{{{}}}'{about}'", names.join(",")),
            };
        }
        options += " ;;\n";
    }
    format!(
        "#compdef lizm
_lizm() {{
  local -a commands=(
{}
  )
  if (( CURRENT == 2 )); then
    _describe command commands
    return
  fi
  shift words
  (( CURRENT-- ))
  case $words[1] in
{options}  esac
}}
# zsh has loaded this file to complete, or a person has sourced it.
if [ \"$funcstack[1]\" = _lizm ]; then
  _lizm \"$@\"
else
  compdef _lizm lizm
fi
",
        commands.join("\n")
    )
}

fn fish() -> String {
    let mut text = "complete -c lizm -n __fish_use_subcommand -f\n".to_owned();
    for command in COMMANDS {
        let (name, summary) = (command.name, fish_escaped(command.summary));
        let _ = writeln!(text, "complete -c lizm -n __fish_use_subcommand -a {name} -d '{summary}'");
        for option in command.options() {
            let _ = write!(text, "complete -c lizm -n '__fish_seen_subcommand_from {name}'");
            for option in option.names() {
                let _ = match option.strip_prefix("--") {
                    Some(long) => write!(text, " -l {long}"),
                    None => write!(text, " -s {}", option.trim_start_matches('-')),
                };
            }
            let value = match completed(option) {
                Completed::Nothing => String::new(),
                Completed::Anything => " -x".to_owned(),
                Completed::File => " -r -F".to_owned(),
                Completed::Directory => " -x -a '(__fish_complete_directories)'".to_owned(),
                Completed::Word(words) => format!(" -x -a '{}'", words.join(" ")),
                Completed::Words(words) => format!(" -x -a '(__fish_append , {})'", words.join(" ")),
            };
            let _ = writeln!(text, "{value} -d '{}'", fish_escaped(first_line(option)));
        }
    }
    text
}

fn first_line(option: &OptionSpec) -> &'static str {
    option.help.lines().next().unwrap_or_default()
}

/// A text within the single quotes and brackets of zsh's `_arguments`.
fn zsh_escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\'', "'\\''");
    ['[', ']', ':'].into_iter().fold(text, |text, c| text.replace(c, &format!("\\{c}")))
}

/// A text within the single quotes of fish.
fn fish_escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\'', "\\'")
}
