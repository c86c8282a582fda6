# bash completion for hashtrie-dump

_hashtrie_dump() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]}
    local command= options= word i
    local commands="stats tree endpoints lookup verify diff snapshot restore export import watch"
    COMPREPLY=()
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ " $commands " == *" $word "* ]]; then
            command=$word
            break
        fi
    done
    case $previous in
    --by)
        mapfile -t COMPREPLY < <(compgen -W "recency bytes holders" -- "$current")
        return
        ;;
    --repair)
        mapfile -t COMPREPLY < <(compgen -d -- "$current")
        return
        ;;
    --depth | --limit | --top | --count | --interval | --max-size | --model | --aliases | --rename)
        return
        ;;
    esac
    case $command in
    "") options="--version" ;;
    stats | endpoints) options="--json --quick" ;;
    tree) options="--json --depth --limit --top --by" ;;
    lookup) options="--json --prompt --model --aliases" ;;
    verify) options="--json --repair" ;;
    diff) options="--json --limit" ;;
    import) options="--json --rename --max-size" ;;
    watch) options="--json --interval --count" ;;
    *) options="--json" ;;
    esac
    if [[ $current == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options --help" -- "$current")
    elif [[ -z $command ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$current")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
}

complete -o filenames -F _hashtrie_dump hashtrie-dump
