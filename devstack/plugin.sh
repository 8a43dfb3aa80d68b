#!/usr/bin/env bash
#
# DevStack sources this file as "plugin.sh MODE [PHASE]", see the end. It has the
# variables of "settings" then, and DevStack's functions and variables.

_XTRACE_SPLITIMAGE=$(set +o | grep xtrace)
set +o xtrace

SPLITIMAGE_DRIVER=splitimage.SplitImageDriver
SPLITIMAGE_WEIGHER_CLASS=splitimage_driver.nova.weigher.SplitImageWeigher
# What [filter_scheduler] weight_classes is when nobody has set it.
SPLITIMAGE_NOVA_WEIGHERS=nova.scheduler.weights.all_weighers
SPLITIMAGE_IMPORT_PLUGIN=splitimage_split
SPLITIMAGE_GLANCE_POLICY=${GLANCE_CONF_DIR:-/etc/glance}/policy.d/splitimage.yaml
SPLITIMAGE_GLANCE_PROTECTIONS=${GLANCE_CONF_DIR:-/etc/glance}/splitimage-property-protections.conf


# Checks
# ------

function check_splitimage {
    case $SPLITIMAGE_ACCELERATOR in
        auto | kvm | tcg) ;;
        *) die $LINENO "SPLITIMAGE_ACCELERATOR is auto, kvm or tcg, not $SPLITIMAGE_ACCELERATOR" ;;
    esac
    is_ubuntu || die $LINENO "splitimage-driver's plugin knows the packages of Debian and Ubuntu only"
    # The nodes without a compute service have nothing to do with the hypervisor.
    is_service_enabled n-cpu || return 0
    [[ ${VIRT_DRIVER:-libvirt} == libvirt ]] \
        || die $LINENO "splitimage-driver extends Nova's libvirt driver: VIRT_DRIVER=$VIRT_DRIVER cannot be"
    case ${LIBVIRT_TYPE:-kvm} in
        kvm | qemu) ;;
        *) die $LINENO "splitimage-driver makes disks of machines: LIBVIRT_TYPE=$LIBVIRT_TYPE cannot be" ;;
    esac
    # An assembly may take longer than what is left of the user's token.
    [[ ${NOVA_USE_SERVICE_TOKEN:-True} == True ]] \
        || die $LINENO "splitimage-driver needs NOVA_USE_SERVICE_TOKEN=True"
}


# Installation
# ------------

# The names in bindep.txt that have no profile, but for those that DevStack
# brings by itself.
function splitimage_packages {
    local name
    for name in $(sed -n 's/^\([a-z0-9][a-z0-9.+-]*\) *$/\1/p' "$SPLITIMAGE_DIR/bindep.txt"); do
        case $name in
            git | python3-venv) ;;
            # A kernel for the appliance where the host has none. Ubuntu has
            # another name for it.
            linux-image-*) splitimage_host_kernel >/dev/null || splitimage_kernel_package "$name" ;;
            *) echo "$name" ;;
        esac
    done
}

function splitimage_kernel_package {
    local debian_name=$1
    if [[ ${os_VENDOR:-} == Ubuntu* ]]; then
        echo linux-image-virtual
    else
        echo "$debian_name"
    fi
}

function install_splitimage {
    setup_develop "$SPLITIMAGE_DIR"
    if is_service_enabled n-cpu; then
        link_splitimage_guestfs "$(splitimage_python "${NOVA_BIN_DIR:-}")"
        link_splitimage_shim
    fi
    if is_service_enabled g-api && [[ $SPLITIMAGE_GLANCE_SPLIT == True ]]; then
        link_splitimage_guestfs "$(splitimage_python "${GLANCE_BIN_DIR:-}")"
    fi
}

# The interpreter of the services whose programs are in a directory.
function splitimage_python {
    local bin=$1
    if [[ -n $bin && -x $bin/python3 ]]; then
        echo "$bin/python3"
    else
        echo "${PYTHON:-/usr/bin/python3}"
    fi
}

# libguestfs' binding comes with the distribution only, for the distribution's
# Python. An environment that does not see its packages gets links to the two
# files.
function link_splitimage_guestfs {
    local python=$1 file place
    "$python" -c "import guestfs" 2>/dev/null && return 0
    place=$("$python" -c "import sysconfig; print(sysconfig.get_path('platlib'))")
    for file in $(splitimage_guestfs_files); do
        sudo ln -sfn "$file" "$place/$(basename "$file")"
    done
    "$python" -c "import guestfs" \
        || die $LINENO "$python cannot import guestfs: services have to run on the distribution's Python"
}

function splitimage_guestfs_files {
    /usr/bin/python3 -c "import guestfs, libguestfsmod as m; print(guestfs.__file__, m.__file__)" \
        || die $LINENO "/usr/bin/python3 cannot import guestfs: is python3-guestfs installed?"
}

# Nova looks for drivers below nova.virt. DevStack installs it editable, and
# such a package is one directory: what is to be seen in it has to be there.
function link_splitimage_shim {
    local link=$NOVA_DIR/nova/virt/splitimage
    [[ -L $link || ! -e $link ]] || die $LINENO "$link is not a link, and not of this plugin"
    ln -sfn "$SPLITIMAGE_DIR/nova/virt/splitimage" "$link"
}


# The kernel of the appliance
# ---------------------------

# The newest kernel of the host whose modules are there: what supermin takes.
function splitimage_host_kernel {
    local kernel
    for kernel in $(ls /boot/vmlinu?-* 2>/dev/null | sort --version-sort --reverse); do
        if [[ -e /lib/modules/$(splitimage_kernel_version "$kernel")/modules.dep ]]; then
            echo "$kernel"
            return 0
        fi
    done
    return 1
}

function splitimage_kernel_version {
    local name
    name=$(basename "$1")
    echo "${name#*-}"
}

# Where only root may read the host's kernel (Ubuntu), libguestfs gets a copy
# of its own. The mode of the original is a decision of the distribution's.
function configure_splitimage_kernel {
    local kernel version copy
    kernel=$(splitimage_host_kernel) || die $LINENO "no kernel in /boot has its modules in /lib/modules"
    [[ ! -r $kernel ]] || return 0
    version=$(splitimage_kernel_version "$kernel")
    copy=$SPLITIMAGE_DATA_DIR/kernel/vmlinuz-$version
    sudo install -D -o "$STACK_USER" -m 0400 "$kernel" "$copy"
    splitimage_environment SUPERMIN_KERNEL "$copy"
    splitimage_environment SUPERMIN_KERNEL_VERSION "$version"
    splitimage_environment SUPERMIN_MODULES "/lib/modules/$version"
}

# Give the services that start appliances a variable.
function splitimage_environment {
    local name=$1 value=$2 service others
    for service in n-cpu g-api; do
        others=$(tr ' ' '\n' <<<"${SYSTEMD_ENV_VARS[$service]:-}" \
            | { grep -v "^$name=" || true; } | xargs)
        SYSTEMD_ENV_VARS[$service]="${others:+$others }$name=$value"
    done
}


# Configuration
# -------------

function configure_splitimage {
    sudo install -d -o "$STACK_USER" "$SPLITIMAGE_CONF_DIR"
    # Nobody else looks into what tenants bring.
    sudo install -d -o "$STACK_USER" -m 0700 "$SPLITIMAGE_DATA_DIR"
    iniset "$SPLITIMAGE_CONF" assembly accelerator "$SPLITIMAGE_ACCELERATOR"
    iniset "$SPLITIMAGE_CONF" assembly max_parallel "$SPLITIMAGE_MAX_PARALLEL"
    configure_splitimage_appliance
    if is_service_enabled g-api; then
        configure_splitimage_glance
    fi
    if is_service_enabled nova; then
        configure_splitimage_nova
    fi
}

function configure_splitimage_appliance {
    if is_service_enabled n-cpu \
        || { is_service_enabled g-api && [[ $SPLITIMAGE_GLANCE_SPLIT == True ]]; }; then
        configure_splitimage_kernel
        # /dev/kvm is for this group; the services are members from their start on.
        if getent group kvm >/dev/null; then
            add_user_to_group "$STACK_USER" kvm
        fi
    fi
}

function configure_splitimage_glance {
    if [[ $SPLITIMAGE_GLANCE_FILTER == True ]]; then
        iniset "$GLANCE_API_PASTE_INI" filter:splitimage use "egg:splitimage-driver#splitimage"
        iniset "$GLANCE_API_PASTE_INI" filter:splitimage config_file "$SPLITIMAGE_CONF"
        # Into every pipeline that has users.
        sed -i '/authtoken context/ { /splitimage/! s/authtoken context/& splitimage/ }' \
            "$GLANCE_API_PASTE_INI"
    else
        deconfigure_splitimage_filter
    fi
    if [[ $SPLITIMAGE_GLANCE_SPLIT == True ]]; then
        iniset "$SPLITIMAGE_CONF" split directory "$SPLITIMAGE_DATA_DIR/split"
        iniset "$SPLITIMAGE_CONF" split max_parallel "$SPLITIMAGE_MAX_PARALLEL"
        iniset "$GLANCE_IMAGE_IMPORT_CONF" splitimage config_file "$SPLITIMAGE_CONF"
        # The last one: it splits what the others have made of a disk.
        splitimage_import_plugins "$SPLITIMAGE_IMPORT_PLUGIN"
    else
        splitimage_import_plugins
    fi
    if [[ $SPLITIMAGE_GLANCE_PROTECT == True ]]; then
        install -D -m 0644 "$SPLITIMAGE_DIR/etc/splitimage/glance-policy.yaml" \
            "$SPLITIMAGE_GLANCE_POLICY"
        install -D -m 0644 "$SPLITIMAGE_DIR/etc/splitimage/glance-property-protections.conf" \
            "$SPLITIMAGE_GLANCE_PROTECTIONS"
        iniset "$GLANCE_API_CONF" DEFAULT property_protection_file "$SPLITIMAGE_GLANCE_PROTECTIONS"
        iniset "$GLANCE_API_CONF" DEFAULT property_protection_rule_format roles
    else
        deconfigure_splitimage_protections
    fi
}

# Glance's import plugins: those of others, and the one that is given.
function splitimage_import_plugins {
    local ours=${1:-} others
    others=$(iniget "$GLANCE_IMAGE_IMPORT_CONF" image_import_opts image_import_plugins)
    others=$(splitimage_without "$(tr -d '[]' <<<"$others")" "$SPLITIMAGE_IMPORT_PLUGIN")
    iniset "$GLANCE_IMAGE_IMPORT_CONF" image_import_opts image_import_plugins \
        "[${others}${others:+${ours:+,}}${ours}]"
}

# A comma separated list without one of its entries, and without blanks.
function splitimage_without {
    local list=$1 entry=$2
    tr -d ' ' <<<"$list" | tr ',' '\n' | { grep -vxF "$entry" || true; } | { grep . || true; } \
        | paste -sd , -
}

# nova-cpu.conf is a copy of nova.conf that DevStack makes when it starts the
# compute service: what is set here gets there.
function configure_splitimage_nova {
    iniset "$NOVA_CONF" splitimage config_file "$SPLITIMAGE_CONF"
    if is_service_enabled n-cpu; then
        iniset "$NOVA_CONF" DEFAULT compute_driver "$SPLITIMAGE_DRIVER"
    fi
    if is_service_enabled n-sch; then
        if [[ $SPLITIMAGE_WEIGHER == True ]]; then
            splitimage_weighers "$SPLITIMAGE_WEIGHER_CLASS"
        else
            splitimage_weighers
        fi
    fi
}

# Nova's weighers: those of others, and the one that is given.
function splitimage_weighers {
    local ours=${1:-} others
    others=$(iniget "$NOVA_CONF" filter_scheduler weight_classes)
    others=$(splitimage_without "${others:-$SPLITIMAGE_NOVA_WEIGHERS}" "$SPLITIMAGE_WEIGHER_CLASS")
    if [[ -z $ours && $others == "$SPLITIMAGE_NOVA_WEIGHERS" ]]; then
        inidelete "$NOVA_CONF" filter_scheduler weight_classes
    else
        iniset "$NOVA_CONF" filter_scheduler weight_classes "${others}${others:+${ours:+,}}${ours}"
    fi
}

# What the properties mean, for dashboards. What is there already is left.
function load_splitimage_metadefs {
    is_service_enabled g-api || return 0
    "$GLANCE_BIN_DIR/glance-manage" --config-file "$GLANCE_API_CONF" \
        db_load_metadefs "$SPLITIMAGE_DIR/etc/splitimage/metadefs"
}

function configure_splitimage_tempest {
    is_service_enabled tempest || return 0
    local now
    now=$(iniget "$TEMPEST_CONFIG" compute build_timeout)
    if [[ ${now:-0} -lt $SPLITIMAGE_BUILD_TIMEOUT ]]; then
        iniset "$TEMPEST_CONFIG" compute build_timeout "$SPLITIMAGE_BUILD_TIMEOUT"
    fi
}


# Taking it out again
# -------------------

function cleanup_splitimage {
    local file bin
    if [[ -L $NOVA_DIR/nova/virt/splitimage ]]; then
        rm -f "$NOVA_DIR/nova/virt/splitimage"
    fi
    for bin in "${NOVA_BIN_DIR:-}" "${GLANCE_BIN_DIR:-}"; do
        unlink_splitimage_guestfs "$(splitimage_python "$bin")"
    done
    for file in "${NOVA_CONF:-}" "${NOVA_CPU_CONF:-}"; do
        deconfigure_splitimage_nova "$file"
    done
    if [[ -e ${GLANCE_API_PASTE_INI:-} ]]; then
        deconfigure_splitimage_filter
    fi
    if [[ -e ${GLANCE_IMAGE_IMPORT_CONF:-} ]]; then
        splitimage_import_plugins
        splitimage_drop_section "$GLANCE_IMAGE_IMPORT_CONF" splitimage
    fi
    if [[ -e ${GLANCE_API_CONF:-} ]]; then
        deconfigure_splitimage_protections
    fi
    sudo rm -rf "$SPLITIMAGE_CONF_DIR" "$SPLITIMAGE_DATA_DIR"
}

function unlink_splitimage_guestfs {
    local python=$1 place link
    [[ -x $python ]] || return 0
    place=$("$python" -c "import sysconfig; print(sysconfig.get_path('platlib'))")
    for link in "$place"/guestfs.py "$place"/libguestfsmod*.so; do
        if [[ -L $link ]]; then
            sudo rm -f "$link"
        fi
    done
}

# With the stock driver servers that were made of parts go on: the images that
# they are of are ordinary ones.
function deconfigure_splitimage_nova {
    local file=$1
    [[ -e $file ]] || return 0
    if [[ $(iniget "$file" DEFAULT compute_driver) == "$SPLITIMAGE_DRIVER" ]]; then
        iniset "$file" DEFAULT compute_driver libvirt.LibvirtDriver
    fi
    splitimage_drop_section "$file" splitimage
    NOVA_CONF=$file splitimage_weighers
}

function deconfigure_splitimage_filter {
    splitimage_drop_section "$GLANCE_API_PASTE_INI" filter:splitimage
    sed -i 's/authtoken context splitimage/authtoken context/' "$GLANCE_API_PASTE_INI"
}

function deconfigure_splitimage_protections {
    rm -f "$SPLITIMAGE_GLANCE_POLICY"
    # Protections that somebody else has configured stay.
    if [[ $(iniget "$GLANCE_API_CONF" DEFAULT property_protection_file) \
            == "$SPLITIMAGE_GLANCE_PROTECTIONS" ]]; then
        inidelete "$GLANCE_API_CONF" DEFAULT property_protection_file
        inidelete "$GLANCE_API_CONF" DEFAULT property_protection_rule_format
    fi
    rm -f "$SPLITIMAGE_GLANCE_PROTECTIONS"
}

# A section of an ini file, to the next one.
function splitimage_drop_section {
    local file=$1 section=$2
    sed -i "/^\[$section\]/,/^\[/ { /^\[$section\]/d; /^\[/!d }" "$file"
}


# Dispatch
# --------

if [[ $1 == stack ]]; then
    case $2 in
        pre-install)
            echo_summary "Installing the packages of splitimage-driver"
            check_splitimage
            install_package $(splitimage_packages)
            ;;
        install)
            echo_summary "Installing splitimage-driver"
            install_splitimage
            ;;
        post-config)
            echo_summary "Configuring splitimage-driver"
            configure_splitimage
            ;;
        extra)
            echo_summary "Loading the metadata definitions of splitimage-driver"
            load_splitimage_metadefs
            ;;
        test-config)
            echo_summary "Configuring Tempest for splitimage-driver"
            configure_splitimage_tempest
            ;;
    esac
elif [[ $1 == unstack ]]; then
    # Nothing of this project runs by itself: assemblies and splits end with the
    # service that they belong to, and are cleaned up by its next start.
    :
elif [[ $1 == clean ]]; then
    cleanup_splitimage
fi

$_XTRACE_SPLITIMAGE
