# Whether what a group of parts needs fits on the file systems it goes to.
package Room;
use strict;
use warnings;
use Kernel;
use Tree;

my %devices;    # directory => [device, directory that is there]

# Device of the file system that a directory is on, or will be.
sub device {
    my ($directory) = @_;
    return $devices{$directory} //= do {
        my $state = Kernel::state_of("/$directory");
        $state && $state->{type} eq 'd' ? [$state->{dev}, "/$directory"]
            : $directory eq '' ? ['', '/'] : device((Tree::split_path($directory))[0]);
    };
}

# What chunks need, device => {bytes, inodes, at}.
sub needs {
    my ($chunks, $block) = @_;
    my %needs;
    for my $op (map { @{ $_->{ops} } } @$chunks) {
        next if $op->{op} eq 'gone';
        my ($device, $at) = @{ device((Tree::split_path($op->{path}))[0]) };
        my $need = $needs{$device} //= { bytes => 0, inodes => 0, at => $at };
        $need->{inodes}++ if $op->{op} ne 'onto';
        next if $op->{op} ne 'file';
        my $bytes = 0;
        $bytes += $_->[1] for @{ $op->{sparse} };
        $bytes = $op->{size} unless @{ $op->{sparse} };
        $need->{bytes} += int(($bytes + $block - 1) / $block) * $block;
    }
    return \%needs;
}

# Takes what the chunks need from %$free (device => what is free, filled as
# need be). Returns '' or the reason why it does not fit; then nothing is taken.
sub take {
    my ($chunks, $free) = @_;
    my $needs = needs($chunks, 4096);
    for my $device (keys %$needs) {
        my $need = $needs->{$device};
        $free->{$device} //= do {
            my ($size, $bytes, $inodes, $all) = Kernel::room($need->{at});
            # A hundredth stays free: others write too.
            defined $size ? { bytes => $bytes - $all / 100, inodes => $inodes } : {};
        };
        my $there = $free->{$device};
        next unless defined $there->{bytes};
        return sprintf 'no room: %d bytes are needed at %s, %d are free', $need->{bytes},
            $need->{at}, $there->{bytes} > 0 ? $there->{bytes} : 0
            if $need->{bytes} > $there->{bytes};
        return sprintf 'no room: %d new files at %s, %d are possible', $need->{inodes},
            $need->{at}, $there->{inodes}
            if defined $there->{inodes} && $need->{inodes} > $there->{inodes};
    }
    for my $device (keys %$needs) {
        my $there = $free->{$device};
        $there->{$_} -= $needs->{$device}{$_} for grep { defined $there->{$_} } qw(bytes inodes);
    }
    return '';
}

1;
