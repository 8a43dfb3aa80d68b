# A plan: what to do, as the host wrote it. Lines of tab-separated fields;
# %XX stands for a byte that a field cannot hold.
package Plan;
use strict;
use warnings;

my $FORMAT = '1';

sub encode {
    my ($field) = @_;
    $field =~ s/([\x00-\x20%\x7f-\xff])/sprintf '%%%02x', ord $1/ge;
    return $field;
}

sub decode {
    my ($field) = @_;
    $field =~ s/%([0-9A-Fa-f]{2})/chr hex $1/ge if index($field, '%') >= 0;
    return $field;
}

# Reads a plan. Dies with one line where it is not one, or is cut short.
#
# The plan is a hash:
#   id, mode, policy, total   as its first line says
#   disks    number => {serial, size, sha256, part}
#   parts    number => name
#   groups   [{number, parts, units => [[action, name]], tmpfiles => [path]}]
#   rows     [{phase, path, grammar, key, old, new, mode, uid, gid, mtime, xattrs, rows}]
#   dirs     [entry]
#   chunks   [{number, disk, parts, bytes, ops => [entry]}] in the plan's order
#   gone     [entry] directories that go
#   times    [[path, mtime]]
# An entry is a hash of op, parts, path, expected and what its line has more.
sub load {
    my ($file) = @_;
    open my $in, '<:raw', $file or die "$file: $!\n";
    my $plan = { disks => {}, parts => {}, groups => [], rows => [], dirs => [], chunks => [],
                 gone => [], times => [] };
    my %groups;
    my $ended;
    while (defined(my $line = <$in>)) {
        chomp $line;
        my ($word, @f) = map { decode($_) } split /\t/, $line, -1;
        next unless defined $word;
        if ($word eq 'splitimage-plan') {
            die "$file: a plan of format $f[0], this system knows format $FORMAT only\n"
                if $f[0] ne $FORMAT;
            @$plan{qw(id mode policy total)} = @f[1 .. 4];
        }
        elsif ($word eq 'disk') {
            my %disk;
            @disk{qw(number serial size sha256 part)} = @f;
            $plan->{disks}{$f[0]} = \%disk;
        }
        elsif ($word eq 'part') { $plan->{parts}{$f[0]} = $f[1] }
        elsif ($word eq 'group') {
            $groups{$f[0]} = { number => $f[0], parts => parts($f[1]), units => [],
                               tmpfiles => [] };
            push @{ $plan->{groups} }, $groups{$f[0]};
        }
        elsif ($word eq 'unit') { push @{ $groups{$f[0]}{units} }, [@f[1, 2]] }
        elsif ($word eq 'tmpfiles') { push @{ $groups{$f[0]}{tmpfiles} }, path($f[1]) }
        elsif ($word eq 'rows') {
            my %rows = (rows => []);
            @rows{qw(phase path grammar key old new mode uid gid mtime)} = @f;
            path($rows{path});
            $rows{mode} = oct $rows{mode};
            $rows{xattrs} = xattrs($f[10]);
            push @{ $plan->{rows} }, \%rows;
        }
        elsif ($word eq 'row') {
            push @{ $plan->{rows}[-1]{rows} },
                { parts => parts($f[0]), key => $f[1], old => $f[2] ? $f[3] : undef,
                  new => $f[4] ? $f[5] : undef,
                  after => [map { decode($_) } split /,/, $f[6] // ''] };
        }
        elsif ($word eq 'chunk') {
            push @{ $plan->{chunks} }, { number => $f[0], disk => $f[1], parts => parts($f[2]),
                                         bytes => $f[3], ops => [] };
        }
        elsif ($word eq 'name') {
            push @{ $plan->{chunks}[-1]{ops}[-1]{names} },
                { path => path($f[0]), expected => expected($f[1]) };
        }
        elsif ($word eq 'dir') { push @{ $plan->{dirs} }, entry($word, @f) }
        elsif ($word eq 'time') { push @{ $plan->{times} }, [root_or_path($f[0]), $f[1]] }
        elsif ($word eq 'end') { $ended = 1 }
        else { push @{ $plan->{chunks}[-1]{ops} }, entry($word, @f) }
    }
    without_directories($plan);
    die "$file: not a whole plan\n" unless $ended && defined $plan->{total};
    die "$file: not the id of a plan\n" unless $plan->{id} =~ /\A[0-9a-f]{12}\z/;
    return $plan;
}

# Takes the removals of directories out of the chunks: they come at the end,
# and nothing waits for them.
sub without_directories {
    my ($plan) = @_;
    my @left;
    for my $chunk (@{ $plan->{chunks} }) {
        my (@gone, @ops);
        for my $op (@{ $chunk->{ops} }) {
            my $directory = $op->{op} eq 'gone' && $op->{expected} && $op->{expected}{type} eq 'd';
            push @{ $directory ? \@gone : \@ops }, $op;
        }
        push @{ $plan->{gone} }, @gone;
        next if @gone && !@ops;
        $chunk->{ops} = \@ops;
        push @left, $chunk;
    }
    $plan->{chunks} = \@left;
    return;
}

my %FIELDS = (
    dir => [qw(mode uid gid xattrs)],
    file => [qw(mode uid gid size mtime sha256 member sparse xattrs)],
    onto => [qw(existing)],
    link => [qw(uid gid mtime target xattrs)],
    node => [qw(type mode uid gid major minor mtime xattrs)],
    gone => [],
);

sub entry {
    my ($word, @fields) = @_;
    my $names = $FIELDS{$word} or die "not a word of a plan: $word\n";
    die "a line of the plan has too few fields: $word\n" if @fields < @$names + 3;
    my %entry = (op => $word, parts => parts(shift @fields), path => shift @fields);
    $word eq 'dir' ? root_or_path($entry{path}) : path($entry{path});
    $entry{$_} = shift @fields for @$names;
    $entry{expected} = expected(shift @fields);
    $entry{mode} = oct $entry{mode} if defined $entry{mode};
    $entry{xattrs} = xattrs($entry{xattrs}) if defined $entry{xattrs};
    path($entry{existing}) if $word eq 'onto';
    if ($word eq 'file') {
        path($entry{member}) if $entry{size};
        $entry{sparse} = [map { [split /\+/] } split /,/, $entry{sparse}];
        $entry{names} = [];
    }
    return \%entry;
}

# Numbers of parts; none: all of them.
sub parts { return [split /,/, $_[0]] }

sub root_or_path { return $_[0] eq '' ? '' : path($_[0]) }

sub path {
    my ($path) = @_;
    die 'not a path within the tree: ' . encode($path) . "\n"
        if $path eq '' || $path =~ m{\A/|/\z|//|\0|(?:\A|/)\.\.?(?:/|\z)};
    return $path;
}

sub xattrs {
    my %found;
    for my $pair (split /,/, $_[0] // '') {
        my ($name, $value) = split /=/, $pair, 2;
        $found{ decode($name) } = pack 'H*', $value;
    }
    return \%found;
}

# What a path is before the layout: undef where it is absent.
sub expected {
    my ($field) = @_;
    return undef if $field eq '-';
    my ($type, @f) = split /:/, $field, 7;
    my %found = (type => $type);
    if ($type eq 'f') { @found{qw(mode uid gid size mtime sha256)} = @f }
    elsif ($type eq 'd') { @found{qw(mode uid gid)} = @f }
    elsif ($type eq 'l') {
        (undef, @f[0 .. 2]) = split /:/, $field, 4;
        @found{qw(uid gid)} = @f[0, 1];
        $found{target} = decode($f[2]);
    }
    elsif ($type eq 'n') { @found{qw(type mode uid gid major minor)} = @f }
    else { die "not a state of a path: $field\n" }
    $found{mode} = oct $found{mode} if defined $found{mode};
    return \%found;
}

1;
