# Lays one chunk: its files are written beside their places, compared with
# their digests, brought to the disk, entered in the journal and only then
# renamed into place. A chunk is laid as a whole or, for a reason, not at all.
package Files;
use strict;
use warnings;
use Errno qw(EEXIST ENOTEMPTY ENOENT);
use Fcntl qw(O_RDONLY O_WRONLY O_CREAT O_EXCL O_NOFOLLOW O_NONBLOCK SEEK_SET);
use POSIX ();
use Kernel;
use Objects;
use State;
use Tree;

my $BUFFER = 1 << 20;

# journal; id and policy of the plan; stopped: code that says whether to stop;
# sources: code from a disk's number to the directory it is mounted at (dies
# with the reason why not).
sub new {
    my ($class, %self) = @_;
    return bless \%self, $class;
}

# Name beside its place of what is written: the number'th of a chunk, or of
# another set of things.
sub temporary {
    my ($self, $set, $number) = @_;
    return ".splitimage-$self->{id}-$set.$number";
}

# Every place that a chunk writes to, with the name beside it:
# [path, temporary name], removals without.
sub places {
    my ($self, $chunk) = @_;
    my $number = 0;
    my @found;
    for my $op (@{ $chunk->{ops} }) {
        next if $op->{op} eq 'gone';
        push @found, [$_->{path}, $self->temporary($chunk->{number}, $number++)]
            for $op, @{ $op->{names} // [] };
    }
    return @found;
}

# Removes what a killed attempt left of a chunk.
sub sweep {
    my ($self, $chunk) = @_;
    for my $place ($self->places($chunk)) {
        my ($directory) = Tree::split_path($place->[0]);
        unlink $place->[1] if Tree::enter($directory) eq '';
    }
    return;
}

# What is to be done at a path: ('write' or 'same' or 'keep', state there).
# Dies with the reason where its directory is not to be entered.
sub decide {
    my ($self, $entry, $path, $expected) = @_;
    my $name = Tree::at($path);
    my $state = Kernel::state_of($name);
    if ($self->{journal}->ours($path)) {
        return ('same', $state) if State::equals($name, $state, $entry, 1)
            && State::finished($name, $state, $entry);
        return ('write', $state);
    }
    return ('same', $state) if State::equals($name, $state, $entry)
        && State::finished($name, $state, $entry);
    return ('write', $state) if State::equals($name, $state, $expected);
    # What ldconfig made of a library before its link came differs in its time only.
    return ($entry->{type} eq 'l' ? 'write' : 'same', $state)
        if State::equals($name, $state, $entry);
    return ('write', $state) if $self->{policy} eq 'force';
    return ('keep', $state);
}

# What is to be done about a path that goes: 'gone' or 'same' or 'keep'.
sub decide_gone {
    my ($self, $op) = @_;
    my ($directory, $name) = Tree::split_path($op->{path});
    my $reason = Tree::enter($directory);
    return ('same', undef) if $reason eq 'absent';
    return ('keep', undef) if $reason;
    my $state = Kernel::state_of($name);
    return ('same', undef) unless defined $state;
    return ('gone', $state) if State::equals($name, $state, $op->{expected});
    return ($self->{policy} eq 'force' ? 'gone' : 'keep', $state);
}

# Paths of a chunk that are the user's: neither as expected nor as wanted.
sub foreign {
    my ($self, $chunk) = @_;
    my @found;
    for my $op (@{ $chunk->{ops} }) {
        if ($op->{op} eq 'gone') {
            push @found, $op->{path} if ($self->decide_gone($op))[0] eq 'keep';
            next;
        }
        my $entry = Objects::wanted($op);
        for my $place ($op, @{ $op->{names} // [] }) {
            my ($what) = eval { $self->decide($entry, $place->{path}, $place->{expected}) };
            push @found, $place->{path} if ($what // 'keep') eq 'keep';
        }
    }
    return @found;
}

# Lays a chunk. Dies with the reason; then none of its temporaries is left.
sub lay {
    my ($self, $chunk) = @_;
    umask 0;
    my @ready;
    my $laid = eval {
        my $number = 0;
        $self->prepare($chunk, $_, \$number, \@ready) for @{ $chunk->{ops} };
        $self->verify(\@ready);
        $self->commit($chunk, \@ready);
        1;
    };
    my $reason = $@;
    for my $item (@ready) {
        next unless defined $item->{temporary} && !$item->{placed};
        my ($directory) = Tree::split_path($item->{path});
        unlink $item->{temporary} if Tree::enter($directory) eq '';
    }
    die $reason unless $laid;
    return;
}

# Decides about one op and writes what is to be written beside its place.
# An item of @$ready: path, state found there, what (write, gone or keep), the entry
# that is wanted, the temporary, for a file its sha256.
sub prepare {
    my ($self, $chunk, $op, $number, $ready) = @_;
    die "stopped\n" if $self->{stopped}->();
    if ($op->{op} eq 'gone') {
        my ($what, $state) = $self->decide_gone($op);
        push @$ready, { path => $op->{path}, what => $what, state => $state }
            unless $what eq 'same';
        return;
    }
    my $entry = Objects::wanted($op);
    my @places;
    for my $place ($op, @{ $op->{names} // [] }) {
        my ($what, $state) = $self->decide($entry, $place->{path}, $place->{expected});
        push @places, { path => $place->{path}, what => $what, state => $state, entry => $entry,
                        temporary => $self->temporary($chunk->{number}, $$number++) };
    }
    if ($op->{op} eq 'file') {
        my @wanted = grep { $_->{what} ne 'keep' } @places;
        my %files = map { ("$_->{state}{dev} $_->{state}{ino}" => 1) }
            grep { defined $_->{state} } @wanted;
        # The names of one file that is there already.
        @places = grep { $_->{what} eq 'keep' } @places
            unless (grep { $_->{what} eq 'write' } @wanted) || keys %files > 1;
        $_->{what} = 'write' for grep { $_->{what} eq 'same' } @places;
    }
    my $first;
    for my $item (@places) {
        next if $item->{what} eq 'same';
        if ($item->{what} eq 'keep') {
            push @$ready, { path => $item->{path}, what => 'keep' };
            next;
        }
        my $name = Tree::at($item->{path});
        unlink $item->{temporary};
        push @$ready, $item;
        if (defined $first) {
            Kernel::link_from($first->{directory}, $first->{temporary}, $item->{temporary})
                or die "/$item->{path}: $!\n";
        }
        elsif ($op->{op} eq 'file') {
            $self->copy($chunk, $op, $item);
            $first = $item if @places > 1;
            $item->{directory} = Tree::handle() if $first;
        }
        else { Objects::make($op, $item->{temporary}) }
    }
    return;
}

# Copies a file's content out of its part to the temporary name.
sub copy {
    my ($self, $chunk, $op, $item) = @_;
    my $in;
    if ($op->{size}) {
        my $source = $self->{sources}->($chunk->{disk});
        sysopen $in, "$source/$op->{member}", O_RDONLY | O_NOFOLLOW | O_NONBLOCK
            or die "/$op->{path}: not to be read from its part: $!\n";
        die "/$op->{path}: no file in its part\n" unless -f $in;
    }
    sysopen my $out, $item->{temporary}, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600
        or die "/$op->{path}: $!\n";
    my @segments = @{ $op->{sparse} };
    @segments = ([0, $op->{size}]) unless @segments || !$op->{size};
    for my $segment (@segments) {
        my ($offset, $left) = @$segment;
        sysseek $in, $offset, SEEK_SET;
        sysseek $out, $offset, SEEK_SET;
        while ($left > 0) {
            die "stopped\n" if $self->{stopped}->();
            my $read = sysread $in, my $data, $left < $BUFFER ? $left : $BUFFER;
            die "/$op->{path}: its part cannot be read: $!\n" unless defined $read;
            last unless $read;
            for (my $done = 0; $done < $read;) {
                my $wrote = syswrite $out, $data, $read - $done, $done;
                die "/$op->{path}: $!\n" unless $wrote;
                $done += $wrote;
            }
            $left -= $read;
        }
    }
    truncate $out, $op->{size} or die "/$op->{path}: $!\n";
    Objects::dress($out, $op);
    $item->{sha256} = $op->{sha256};
    return;
}

# Compares the files that were written with their digests.
sub verify {
    my ($self, $ready) = @_;
    my %wanted;
    for my $item (grep { defined $_->{sha256} } @$ready) {
        my ($directory) = Tree::split_path($item->{path});
        $wanted{"/$directory/$item->{temporary}"} = $item;
    }
    my %found = State::digests(sort keys %wanted);
    for my $path (sort keys %wanted) {
        die "/$wanted{$path}{path}: its content in the part is not what it should be\n"
            if ($found{$path} // '') ne $wanted{$path}{sha256};
    }
    return;
}

# Brings a prepared chunk into place, and to the disk.
sub commit {
    my ($self, $chunk, $ready) = @_;
    my %around;
    for my $item (grep { $_->{what} ne 'keep' } @$ready) {
        Tree::at($item->{path});
        my $place = Kernel::state_of('.') or die "/$item->{path}: $!\n";
        $around{ $place->{dev} } //= Tree::handle();
    }
    die "stopped\n" if $self->{stopped}->();
    # The contents and the journal's lines about them, in one go.
    $self->{journal}->note(map { [$_->{what} eq 'keep' ? 'k' : 'w', $_->{path}] } @$ready);
    Kernel::sync_all($self->{journal}{handle},
                     map { $around{$_} } grep { $_ ne $self->{journal}{device} } keys %around);
    my @kept;
    for my $item (grep { $_->{what} ne 'keep' } @$ready) {
        my $name = Tree::at($item->{path});
        push @kept, $item->{path} unless place($item, $name) || already($item, $name);
    }
    $self->{journal}->add(map { ['k', $_] } @kept);
    Kernel::sync_all(values %around);
    $self->{journal}->add(['d', $chunk->{number}]);
    return;
}

# Renames one item into place, or removes its path; false where the user was
# there in the meantime, and what is there stays.
sub place {
    my ($item, $name) = @_;
    return 0 unless State::untouched($item->{state}, Kernel::state_of($name));
    if ($item->{what} eq 'gone') {
        return unlink($name) || $! == ENOENT || die "/$item->{path}: $!\n";
    }
    if (!defined $item->{state}) {
        if (!Kernel::rename_new($item->{temporary}, $name)) {
            return 0 if $! == EEXIST;
            die "/$item->{path}: $!\n";
        }
    }
    else {
        if ($item->{state}{type} eq 'd' && !rmdir $name) {
            return 0 if $! == ENOTEMPTY || $! == EEXIST;
            die "/$item->{path}: $!\n";
        }
        rename $item->{temporary}, $name or die "/$item->{path}: $!\n";
        # A rename to another name of the same file does nothing.
        unlink $item->{temporary};
    }
    $item->{placed} = 1;
    return 1;
}

# Whether what is there in the meantime is what was to be placed: ldconfig makes, and
# removes, links of libraries. Such a link gets its time.
sub already {
    my ($item, $name) = @_;
    my ($entry, $state) = ($item->{entry}, Kernel::state_of($name));
    return 0 unless State::equals($name, $state, $entry);
    return 1 unless defined $entry && $entry->{type} eq 'l';
    $item->{state} = $state;
    return place($item, $name);
}

1;
