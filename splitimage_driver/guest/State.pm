# Whether what is at a path is what a plan says of it.
package State;
use strict;
use warnings;
use Kernel;

# sha256 of files, by one process: path => hex; a file that cannot be read is
# not among them.
sub digests {
    my @paths = @_;
    my %found;
    while (my @some = splice @paths, 0, 500) {
        open my $sums, '-|', 'sha256sum', '-z', '--', @some or die "sha256sum: $!\n";
        local $/ = "\0";
        while (defined(my $line = <$sums>)) {
            chomp $line;
            $found{$2} = $1 if $line =~ /\A([0-9a-f]{64}) [ *](.*)\z/s;
        }
        close $sums;
    }
    return %found;
}

# sha256 of the file at a name in the working directory; '' where it cannot be read.
sub digest {
    my ($name) = @_;
    my %found = digests("./$name");
    return $found{"./$name"} // '';
}

# Whether the state of a name is that of an entry (or of an expected state):
# type, mode, owner; of a file also size and content. Equal times stand for
# equal content unless $thorough.
sub equals {
    my ($name, $state, $entry, $thorough) = @_;
    return !defined $state unless defined $entry;
    if ($entry->{type} eq 'name') {
        my $of = $entry->{of};
        return defined $state && $state->{dev} eq $of->{dev} && $state->{ino} == $of->{ino};
    }
    return 0 unless defined $state && $state->{type} eq $entry->{type};
    return 0 if $state->{uid} != $entry->{uid} || $state->{gid} != $entry->{gid};
    return 0 if $entry->{type} ne 'l' && $state->{mode} != $entry->{mode};
    if ($entry->{type} eq 'l') { return (readlink($name) // '') eq $entry->{target} }
    if ($entry->{type} eq 'f') {
        return 0 if $state->{size} != $entry->{size};
        return 1 if !$thorough && $state->{mtime} == $entry->{mtime};
        return digest($name) eq $entry->{sha256};
    }
    if ($entry->{type} eq 'c' || $entry->{type} eq 'b') {
        return $state->{major} == $entry->{major} && $state->{minor} == $entry->{minor};
    }
    return 1;
}

# Whether a name has the extended attributes of an entry and, for all but
# directories, its time: what equals() does not look at.
sub finished {
    my ($name, $state, $entry) = @_;
    return 0 if $entry->{type} ne 'd' && defined $entry->{mtime}
        && $state->{mtime} != $entry->{mtime};
    my $wanted = $entry->{xattrs} // {};   # none of a further name
    for my $key (keys %$wanted) {
        my $value = Kernel::xattr($name, $key);
        return 0 unless defined $value && $value eq $wanted->{$key};
    }
    return 1;
}

# Whether nothing has touched a name between two looks at it.
sub untouched {
    my ($one, $two) = @_;
    return !defined $two unless defined $one;
    return defined $two && $one->{ino} == $two->{ino} && $one->{dev} eq $two->{dev}
        && $one->{ctime} == $two->{ctime};
}

1;
