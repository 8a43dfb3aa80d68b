# Shared files, row by row, under their owners' locks: what this system's users
# changed in them meanwhile stays.
package Rows;
use strict;
use warnings;
use Errno qw(ENOENT);
use Fcntl qw(O_RDONLY O_WRONLY O_CREAT O_EXCL O_NOFOLLOW);
use IO::Handle;
use Kernel;
use Objects;
use State;
use Tree;

my $NUMBERED = '%s%s%08d';

# The records of a file's content: [[key, record]] in their order. The second
# and later ones of one key are numbered, as the host does it.
sub parse {
    my ($file, $content) = @_;
    my @records;
    if ($file->{grammar} eq 'stanzas') {
        @records = grep { $_ ne '' } split /\n\n+/, $content =~ s/\A\n+//r =~ s/\n+\z//r;
    }
    else {
        @records = split /\n/, $content =~ s/\n\z//r, -1;
        @records = () if $content eq '';
        if ($file->{grammar} eq 'triples') {
            my @lines = @records;
            @records = ();
            push @records, join "\n", splice @lines, 0, 3 while @lines;
        }
    }
    my $pattern = qr/$file->{key}/;
    my %seen;
    my @found;
    for my $record (@records) {
        my @groups = $record =~ $pattern;
        my $key = join ':', map { $_ // '' } @groups;
        my $number = ++$seen{$key};
        $key = sprintf $NUMBERED, $key, "\0", $number if $number > 1;
        push @found, [$key, $record];
    }
    return \@found;
}

sub build {
    my ($file, $records) = @_;
    my $between = $file->{grammar} eq 'stanzas' ? "\n\n" : "\n";
    return join '', map { "$_->[1]$between" } @$records;
}

# Applies rows to records. Returns the new records and the keys of rows that
# stay as the user made them.
sub apply {
    my ($records, $rows, $force) = @_;
    my @records = map { [@$_] } @$records;
    my %at = map { ($_->[0] => $_) } @records;
    my @kept;
    my %gone;
    for my $row (@$rows) {
        my $now = $at{ $row->{key} };
        my $value = $now && $now->[1];
        next if same($value, $row->{new});
        if (!same($value, $row->{old}) && !$force) {
            push @kept, $row->{key};
        }
        elsif (!defined $row->{new}) {
            $gone{ $row->{key} } = 1;
            delete $at{ $row->{key} };
        }
        elsif ($now) { $now->[1] = $row->{new} }
        else {
            my $place = @records;
            AFTER: for my $before (@{ $row->{after} }) {
                next unless $at{$before};
                for my $n (0 .. $#records) {
                    next if $records[$n] != $at{$before};
                    $place = $n + 1;
                    last AFTER;
                }
            }
            $at{ $row->{key} } = [$row->{key}, $row->{new}];
            splice @records, $place, 0, $at{ $row->{key} };
        }
    }
    return ([grep { !$gone{ $_->[0] } } @records], \@kept);
}

sub same {
    my ($one, $two) = @_;
    return defined $one ? defined $two && $one eq $two : !defined $two;
}

# The content of a shared file now; undef where there is none.
sub content {
    my ($path) = @_;
    my $name = Tree::at($path);
    if (!sysopen my $in, $name, O_RDONLY | O_NOFOLLOW) {
        return undef if $! == ENOENT;
        die "/$path: $!\n";
    }
    else {
        die "/$path is not a file\n" unless -f $in;
        my ($found, $read) = ('', 1);
        $read = sysread $in, $found, 1 << 20, length $found while $read;
        die "/$path: $!\n" unless defined $read;
        return $found;
    }
}

# The number of an account or a group that a row makes has another name here,
# or its name has another number: the reason; '' where neither is so.
sub clash {
    my ($file, $row, $records) = @_;
    return '' if $file->{path} !~ m{\Aetc/(passwd|group)\z} || defined $row->{old}
        || !defined $row->{new};
    my $kind = $1 eq 'passwd' ? 'uid' : 'gid';
    my $number = (split /:/, $row->{new})[2] // '';
    for my $record (@$records) {
        my $other = (split /:/, $record->[1])[2];
        next unless defined $other;
        return "$kind $number of $row->{key} belongs to $record->[0] here"
            if $record->[0] ne $row->{key} && $other eq $number;
        return "$row->{key} has $kind $other here, not $number"
            if $record->[0] eq $row->{key} && $other ne $number;
    }
    return '';
}

# Whether every row of a file is the user's own business already: for a
# removal that refuses. Returns the keys that are neither old nor new.
sub foreign {
    my ($file) = @_;
    my $content = content($file->{path});
    return () if $file->{grammar} eq 'alternatives';
    my $digest = digest($file->{path});
    return () if $digest eq $file->{old} || $digest eq $file->{new};
    return @{ (apply(parse($file, $content // ''), $file->{rows}))[1] };
}

# sha256 of a shared file now; '-' where there is none.
sub digest {
    my ($path) = @_;
    my $name = Tree::at($path);
    return defined Kernel::state_of($name) ? State::digest($name) : '-';
}

# What the plan wants a shared file to hold; undef where it is to vanish.
sub wanted {
    my ($file, $contents) = @_;
    return undef if $file->{new} eq '-';
    my $place = "$contents/$file->{new}";
    my %found = State::digests($place);
    die "/$file->{path}: its content in the plan is not what it should be\n"
        if ($found{$place} // '') ne $file->{new};
    open my $in, '<:raw', $place or die "$place: $!\n";
    local $/;
    return <$in> // '';
}

# Applies the rows of one file. $contents: directory of the plan's contents;
# $rows: those of its rows that are wanted; $force: the user's version goes.
# Returns the keys that stay as the user made them. The caller has the locks.
sub lay {
    my ($file, $rows, $contents, $temporary, $force) = @_;
    my $digest = digest($file->{path});
    return () if $digest eq $file->{new} || @$rows < @{ $file->{rows} } && !@$rows;
    my $wanted = wanted($file, $contents);
    if (@$rows == @{ $file->{rows} } && $digest eq $file->{old}) {
        if (defined $wanted) { replace($file, $wanted, $temporary, 1) }
        else { remove($file->{path}) }
        return ();
    }
    if ($file->{grammar} eq 'alternatives') {
        require Alternatives;
        return Alternatives::lay($file, $rows);
    }
    my $before = content($file->{path});
    my ($records, $kept) = apply(parse($file, $before // ''), $rows, $force);
    my $content = build($file, $records);
    return @$kept if defined $before && $content eq $before;
    if ($content eq '' && !defined $wanted) { remove($file->{path}) }
    else { replace($file, $content, $temporary, same($content, $wanted)) }
    return @$kept;
}

sub remove {
    my ($path) = @_;
    my $name = Tree::at($path);
    unlink $name or $! == ENOENT or die "/$path: $!\n";
    Tree::handle()->sync;
    return;
}

# Writes a shared file whole: beside, to the disk, into place. With the plan's
# owner, mode and time where $theirs or where it is new, else with its own.
sub replace {
    my ($file, $content, $temporary, $theirs) = @_;
    my $name = Tree::at($file->{path});
    unlink $temporary;
    sysopen my $out, $temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600
        or die "/$file->{path}: $!\n";
    my $written = eval {
        for (my $done = 0; $done < length $content;) {
            my $wrote = syswrite $out, $content, length($content) - $done, $done;
            die "/$file->{path}: $!\n" unless $wrote;
            $done += $wrote;
        }
        my %entry = (%$file, op => 'file');
        my $state = Kernel::state_of($name);
        if (!$theirs) {
            delete $entry{mtime};
            @entry{qw(mode uid gid)} = @$state{qw(mode uid gid)} if $state;
        }
        Objects::dress($out, \%entry);
        $out->sync or die "/$file->{path}: $!\n";
        rename $temporary, $name or die "/$file->{path}: $!\n";
        Tree::handle()->sync;
        1;
    };
    return if $written;
    my $reason = $@;
    unlink $temporary;
    die $reason;
}

1;
