# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_millpond_global_optspecs
    string join \n h/help V/version
end

function __fish_millpond_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_millpond_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_millpond_using_subcommand
    set -l cmd (__fish_millpond_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c millpond -n "__fish_millpond_needs_command" -s h -l help -d 'Print help'
complete -c millpond -n "__fish_millpond_needs_command" -s V -l version -d 'Print version'
complete -c millpond -n "__fish_millpond_needs_command" -f -a "run" -d 'Run the proxy, from a file or in one line'
complete -c millpond -n "__fish_millpond_needs_command" -f -a "check" -d 'Check a configuration file: exit 0 if it can be used, 2 with every error'
complete -c millpond -n "__fish_millpond_needs_command" -f -a "demo" -d 'Show what a pool and graceful closes change, and what they cost: the same with and without'
complete -c millpond -n "__fish_millpond_needs_command" -f -a "doctor" -d 'Look at this host\'s TIME_WAIT, ports, resets and settings, and say what to do about them'
complete -c millpond -n "__fish_millpond_using_subcommand run" -l config -d 'The configuration file' -r -F
complete -c millpond -n "__fish_millpond_using_subcommand run" -l listen -d 'Where to listen: IPv4:PORT, [IPv6]:PORT, name:PORT or unix:PATH' -r
complete -c millpond -n "__fish_millpond_using_subcommand run" -l upstream -d 'The service: http://HOST:PORT, tcp://HOST:PORT or frames://HOST:PORT?length=0:4:big (or ?delimiter=%0A, or ?size=N); unix:PATH may stand for HOST:PORT' -r
complete -c millpond -n "__fish_millpond_using_subcommand run" -l pool-size -d 'Connections to the service, at most [default: 64]' -r
complete -c millpond -n "__fish_millpond_using_subcommand run" -l admin -d 'Where page, metrics and API listen, or off [default: 127.0.0.1:9900]' -r
complete -c millpond -n "__fish_millpond_using_subcommand run" -s h -l help -d 'Print help'
complete -c millpond -n "__fish_millpond_using_subcommand check" -l config -d 'The configuration file' -r -F
complete -c millpond -n "__fish_millpond_using_subcommand check" -s h -l help -d 'Print help'
complete -c millpond -n "__fish_millpond_using_subcommand demo" -l keep -d 'Leave the service and millpond running after the tables, until Ctrl-C or SIGTERM'
complete -c millpond -n "__fish_millpond_using_subcommand demo" -s h -l help -d 'Print help'
complete -c millpond -n "__fish_millpond_using_subcommand doctor" -l seconds -d 'For how long rates are measured' -r
complete -c millpond -n "__fish_millpond_using_subcommand doctor" -l json -d 'Print JSON, as conf/reference/doctor.md describes it'
complete -c millpond -n "__fish_millpond_using_subcommand doctor" -l watch -d 'Show each RST of this host as it happens, and live numbers, until Ctrl-C'
complete -c millpond -n "__fish_millpond_using_subcommand doctor" -s h -l help -d 'Print help'
