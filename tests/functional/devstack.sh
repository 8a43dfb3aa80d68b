#!/usr/bin/env bash
#
# What the DevStack plugin finds when DevStack sources it, for one directory
# instead of a host: DevStack's functions, small, but doing the work.
#
# usage: devstack.sh ROOT [MODE [PHASE]] ...
# Each argument is the words of one call, "stack install" or "clean". What is in
# the environment is as if it were in local.conf.

set -o errexit

ROOT=$1
shift
EDIT=("${TEST_PYTHON:-python3}" "$(dirname "${BASH_SOURCE[0]}")/inifiles.py")

# -- DevStack's functions ---------------------------------------------------------

function echo_summary {
    echo "summary: $*"
}

function die {
    echo "die: ${*:2}" >&2
    exit 1
}

function trueorfalse {
    case ${!2:-} in
        1 | [yY]es | YES | [tT]rue | TRUE) echo True ;;
        0 | [nN]o | NO | [fF]alse | FALSE) echo False ;;
        *) echo "$1" ;;
    esac
}

function is_service_enabled {
    local name service
    for name in "$@"; do
        for service in ${ENABLED_SERVICES//,/ }; do
            # "nova" is whatever of it there is.
            if [[ $service == "$name" || $name == nova && $service == n-* ]]; then
                return 0
            fi
        done
    done
    return 1
}

function is_ubuntu {
    [[ $os_VENDOR == Debian || $os_VENDOR == Ubuntu ]]
}

function install_package {
    printf '%s\n' "$@" >>"$ROOT/packages"
}

function setup_develop {
    echo "$1" >>"$ROOT/developed"
}

function add_user_to_group {
    echo "$1 $2" >>"$ROOT/groups"
}

# Root's rights for who is not root: a copy of env with the bit for it.
function sudo {
    if [[ $EUID == 0 ]]; then
        "$@"
    else
        "$ROOT/sudo-env" "$@"
    fi
}

function iniset {
    "${EDIT[@]}" set "$@"
}

function iniget {
    "${EDIT[@]}" get "$@"
}

function inidelete {
    "${EDIT[@]}" delete "$@"
}

function define_plugin {
    :
}

# -- and its variables -------------------------------------------------------------

declare -A -g SYSTEMD_ENV_VARS
STACK_USER=$(id -un)
DEST=$ROOT/stack
DATA_DIR=$DEST/data
DEVSTACK_VENV=$DATA_DIR/venv
PYTHON=$DEVSTACK_VENV/bin/python3
ENABLED_SERVICES=${ENABLED_SERVICES-g-api,n-api,n-cond,n-cpu,n-sch,tempest}
os_VENDOR=${os_VENDOR:-Debian}
NOVA_DIR=$DEST/nova
NOVA_BIN_DIR=$DEVSTACK_VENV/bin
NOVA_CONF=$ROOT/etc/nova/nova.conf
NOVA_CPU_CONF=$ROOT/etc/nova/nova-cpu.conf
GLANCE_BIN_DIR=$DEVSTACK_VENV/bin
GLANCE_CONF_DIR=$ROOT/etc/glance
GLANCE_API_CONF=$GLANCE_CONF_DIR/glance-api.conf
GLANCE_API_PASTE_INI=$GLANCE_CONF_DIR/glance-api-paste.ini
GLANCE_IMAGE_IMPORT_CONF=$GLANCE_CONF_DIR/glance-image-import.conf
TEMPEST_CONFIG=$ROOT/etc/tempest.conf
SPLITIMAGE_CONF_DIR=$ROOT/etc/splitimage

for call in "$@"; do
    source "$DEST/splitimage-driver/devstack/override-defaults"
    source "$DEST/splitimage-driver/devstack/settings"
    # In words of its own.
    source "$DEST/splitimage-driver/devstack/plugin.sh" $call
    # As DevStack does when it starts the compute service.
    if [[ $call == "stack post-config" ]] && is_service_enabled n-cpu; then
        cp "$NOVA_CONF" "$NOVA_CPU_CONF"
    fi
done

set | sed -n "/^GLANCE_LIMIT/p" >"$ROOT/limits"
for service in "${!SYSTEMD_ENV_VARS[@]}"; do
    echo "$service ${SYSTEMD_ENV_VARS[$service]}"
done | sort >"$ROOT/environments"
