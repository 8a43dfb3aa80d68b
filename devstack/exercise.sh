#!/usr/bin/env bash
#
# Shows on a running cloud that servers are made of parts, with the ordinary
# "openstack" client: a gold disk is imported and becomes a composite image, a
# server with two of its parts is launched, and another one with the same parts,
# which is an exact match. What was made for it is deleted at the end.
#
# It acts as the user whom OS_CLOUD (or the other variables of the client) names,
# a plain member of a project. Further variables, with their defaults, are below.

set -o errexit
set -o nounset
set -o pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [[ -z ${OS_CLOUD:-} && -z ${OS_AUTH_URL:-} ]]; then
    export OS_CLOUD=devstack
fi

# The gold disk, a qcow2. Made, by root, where none is given: a Debian with
# Apache, MariaDB and PHP, which takes some minutes and is kept for the next time.
SPLITIMAGE_GOLD=${SPLITIMAGE_GOLD:-}
# Its software: names of parts and the packages of each.
SPLITIMAGE_SOFTWARE=${SPLITIMAGE_SOFTWARE:-apache=apache2 mysql=mariadb-server php=php,libapache2-mod-php,php-mysql}
# What the servers are to have of it.
SPLITIMAGE_PARTS=${SPLITIMAGE_PARTS:-apache,php}
SPLITIMAGE_FLAVOR=${SPLITIMAGE_FLAVOR:-ds512M}
SPLITIMAGE_NETWORK=${SPLITIMAGE_NETWORK:-none}
# Seconds for the import, and for each server.
SPLITIMAGE_TIMEOUT=${SPLITIMAGE_TIMEOUT:-1800}
# Left where it is, to look at: True.
SPLITIMAGE_KEEP=${SPLITIMAGE_KEEP:-False}

name=splitimage-exercise-$$
servers=()
completed=

function say {
    echo "exercise: $*"
}

function fail {
    echo "exercise: $*" >&2
    exit 1
}

# Without an answer on standard input the client asks for none.
function client {
    openstack --os-compute-api-version 2.37 "$@" </dev/null
}

function clean_up {
    local status=$? server
    trap - EXIT
    if [[ $SPLITIMAGE_KEEP == True ]]; then
        say "kept: image $name, servers ${servers[*]:-none}"
        exit $status
    fi
    say "deleting what was made"
    for server in "${servers[@]}"; do
        client server delete --wait "$server" || status=1
    done
    if [[ -n $completed ]]; then
        client image delete "$completed" || status=1
    fi
    # The parts go with it.
    if client image show -c id "$name" >/dev/null 2>&1; then
        client image delete "$name" || status=1
    fi
    exit $status
}

# Run a command until it prints one of some words.
# wait_for WHAT SECONDS "WORD ..." COMMAND ...
function wait_for {
    local what=$1 seconds=$2 words=$3 word= end
    shift 3
    end=$((SECONDS + seconds))
    while [[ $SECONDS -lt $end ]]; do
        word=$("$@")
        if [[ " $words " == *" $word "* ]]; then
            echo "$word"
            return 0
        fi
        sleep 2
    done
    echo "exercise: $what is $word after $seconds s" >&2
    return 1
}

function image_property {
    client image show -f json -c properties "$1" \
        | python3 -c "import json, sys; print(json.load(sys.stdin)['properties'].get('$2', ''))"
}

function image_status {
    local status
    status=$(client image show -f value -c status "$name")
    # Queued is what it is before, too.
    if [[ $status == queued && -n $(image_property "$name" splitimage_error) ]]; then
        status=failed
    fi
    echo "$status"
}

function server_status {
    client server show -f value -c status "$1"
}

function gold_disk {
    local made=$HERE/../.cache/exercise
    if [[ ! -e $made/php.qcow2 ]]; then
        (cd "$HERE/.." && sudo /usr/bin/python3 -m demo.gold --out "$made") >&2
    fi
    echo "$made/php.qcow2"
}

function import_gold {
    say "importing $SPLITIMAGE_GOLD with $SPLITIMAGE_SOFTWARE"
    client image create --import --disk-format qcow2 --container-format bare \
        --file "$SPLITIMAGE_GOLD" --property splitimage_split="$SPLITIMAGE_SOFTWARE" \
        -f value -c id "$name"
    if [[ $(wait_for "image $name" "$SPLITIMAGE_TIMEOUT" "active failed killed" \
            image_status) != active ]]; then
        fail "the import failed: $(image_property "$name" splitimage_error)"
    fi
    [[ $(image_property "$name" splitimage_role) == composite ]] \
        || fail "the image is no composite: is the import plugin in Glance?"
}

# launch NAME: a server with the parts
function launch {
    local server=$1 status began=$SECONDS network=(--network "$SPLITIMAGE_NETWORK")
    if [[ $SPLITIMAGE_NETWORK == none ]]; then
        network=(--no-network)
    fi
    client server create --image "$name" --flavor "$SPLITIMAGE_FLAVOR" "${network[@]}" \
        --property splitimage:parts="$SPLITIMAGE_PARTS" -f value -c id "$server"
    servers+=("$server")
    status=$(wait_for "server $server" "$SPLITIMAGE_TIMEOUT" "ACTIVE ERROR" server_status "$server")
    if [[ $status != ACTIVE ]]; then
        client server show -f value -c fault "$server" >&2
        fail "server $server is $status"
    fi
    say "server $server is ACTIVE after $((SECONDS - began)) s"
}

# The image that a server is of. It is shown as NAME (ID).
function image_of {
    client server show -f value -c image "$1" | sed -E 's/.*\(([^()]*)\)$/\1/'
}

trap clean_up EXIT

SPLITIMAGE_GOLD=${SPLITIMAGE_GOLD:-$(gold_disk)}
import_gold

launch "$name-1"
completed=$(image_of "$name-1")
[[ $(image_property "$completed" splitimage_role) == completed ]] \
    || fail "server $name-1 is of $completed, no completed image: does the compute service have the driver?"
say "it is of $completed: $(image_property "$completed" splitimage_parts)"

launch "$name-2"
[[ $(image_of "$name-2") == "$completed" ]] \
    || fail "server $name-2 is of another image than $completed"
say "SUCCESS: both servers are of one completed image"
