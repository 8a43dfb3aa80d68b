# What is no regular file's content: owners, modes, attributes and times, links,
# nodes, directories.
package Objects;
use strict;
use warnings;
use Errno qw(EEXIST ENOTEMPTY);
use Fcntl qw(O_RDONLY O_DIRECTORY O_NOFOLLOW O_NONBLOCK);
use POSIX ();
use Kernel;
use State;
use Tree;

# POSIX lists that a new object takes over from its directory.
my @INHERITED = ('system.posix_acl_access', 'system.posix_acl_default');

# The entry that an op makes, as State compares it.
sub wanted {
    my ($op) = @_;
    my %type = (file => 'f', link => 'l', dir => 'd');
    return { %$op, type => $type{ $op->{op} } // $op->{type} } unless $op->{op} eq 'onto';
    # A further name: whatever the file is that has the first one.
    my $state = Kernel::state_of(Tree::at($op->{existing}))
        or die "/$op->{existing} is not there\n";
    return { type => 'name', of => $state };
}

# Gives an open file or directory its owner, mode, attributes and time.
sub dress {
    my ($handle, $entry) = @_;
    chown $entry->{uid}, $entry->{gid}, $handle or die "/$entry->{path}: chown: $!\n";
    Kernel::remove_xattr($handle, $_) for $entry->{op} eq 'dir' ? @INHERITED : $INHERITED[0];
    chmod $entry->{mode}, $handle or die "/$entry->{path}: chmod: $!\n";
    set_xattrs($handle, $entry);
    if (defined $entry->{mtime}) {
        Kernel::set_mtime($handle, $entry->{mtime}) or die "/$entry->{path}: $!\n";
    }
    return;
}

sub set_xattrs {
    my ($target, $entry) = @_;
    for my $key (sort keys %{ $entry->{xattrs} }) {
        Kernel::set_xattr($target, $key, $entry->{xattrs}{$key})
            or die "/$entry->{path}: attribute $key: $!\n";
    }
    return;
}

# Makes a symbolic link, a node or a further name, as $name in the working
# directory.
sub make {
    my ($op, $name) = @_;
    if ($op->{op} eq 'onto') {
        my ($to) = Tree::split_path($op->{path});
        my $old = Tree::at($op->{existing});
        my $from = Tree::handle();
        Tree::at($op->{path});
        Kernel::link_from($from, $old, $name) or die "/$op->{path}: $!\n";
        return;
    }
    my $made = $op->{op} eq 'link' ? symlink $op->{target}, $name
        : Kernel::make_node($name, $op->{type}, $op->{mode}, $op->{major} || 0, $op->{minor} || 0);
    $made or die "/$op->{path}: $!\n";
    # POSIX's, not perl's own: that one follows links.
    POSIX::lchown($op->{uid}, $op->{gid}, $name) or die "/$op->{path}: chown: $!\n";
    set_xattrs($name, $op);
    Kernel::set_mtime($name, $op->{mtime}) or die "/$op->{path}: $!\n";
    return;
}

# Makes a directory, or gives one that is as expected its new owner and mode.
# Returns 'made', 'same' or 'keep'; dies with the reason.
sub make_directory {
    my ($op, $files, $temporary) = @_;
    umask 0;
    my $name = Tree::at($op->{path});
    my $entry = wanted($op);
    my ($what, $state) = $files->decide($entry, $op->{path}, $op->{expected});
    return $what if $what ne 'write';
    # What a power cut leaves of a change in steps is neither the one nor the other.
    $files->{journal}->add(['w', $op->{path}]) if defined $state;
    if (defined $state && $state->{type} eq 'd') {
        my $handle = open_directory($op, $name);
        # The labels of a security module stay.
        for my $key (grep { !/\Asecurity\./ } Kernel::xattrs($name)) {
            Kernel::remove_xattr($handle, $key) unless exists $entry->{xattrs}{$key};
        }
        dress($handle, $entry);
        return 'made';
    }
    rmdir $temporary;
    mkdir $temporary, 0700 or die "/$op->{path}: $!\n";
    my $made = eval {
        dress(open_directory($op, $temporary), $entry);
        if (defined $state) { unlink $name or die "/$op->{path}: $!\n" }
        Kernel::rename_new($temporary, $name) or $! == EEXIST or die "/$op->{path}: $!\n";
    };
    my $reason = $@;
    rmdir $temporary;
    return $made ? 'made' : die $reason;
}

sub open_directory {
    my ($op, $name) = @_;
    sysopen my $handle, $name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK
        or die "/$op->{path}: $!\n";
    return $handle;
}

# Removes a directory that goes. Returns 'gone', 'same' or, where something is
# in it or the user changed it, 'keep'.
sub remove_directory {
    my ($op, $files) = @_;
    my ($what) = $files->decide_gone($op);
    return $what if $what ne 'gone';
    return 'gone' if rmdir((Tree::split_path($op->{path}))[1]);
    return 'keep' if $! == ENOTEMPTY || $! == EEXIST;
    die "/$op->{path}: $!\n";
}

1;
