# What follows when the files of a group of parts are complete.
package Services;
use strict;
use warnings;
use POSIX ();

# Where no systemd runs (a chroot), nothing is started.
sub running { return -d '/run/systemd/system' }

# Makes a group's software known to the system and starts its units. $says is
# called with (unit, 'started' or 'failed', reason).
sub start {
    my ($group, $libraries, $says) = @_;
    my @first = $libraries ? begin('ldconfig') : ();
    if (running()) {
        push @first, begin('systemctl', 'daemon-reload') if @{ $group->{units} };
        push @first, begin('systemd-tmpfiles', '--create', map { "/$_" } @{ $group->{tmpfiles} })
            if @{ $group->{tmpfiles} };
    }
    finish($_) for @first;
    return unless running();
    for my $unit (@{ $group->{units} }) {
        my ($action, $name) = @$unit;
        next if $action eq 'stop';
        my $reason = finish(begin('systemctl', $action, $name));
        $says->($name, $reason eq '' ? 'started' : 'failed', $reason);
    }
    return;
}

# Stops the units that a plan stops.
sub stop {
    my ($groups) = @_;
    return unless running();
    for my $unit (map { @{ $_->{units} } } @$groups) {
        finish(begin('systemctl', 'stop', $unit->[1])) if $unit->[0] eq 'stop';
    }
    return;
}

# Starts a command.
sub begin {
    my (@command) = @_;
    my $child = open my $out, '-|';
    return { reason => "$command[0]: $!" } unless defined $child;
    if (!$child) {
        open STDIN, '<', '/dev/null';
        open STDERR, '>&', \*STDOUT;
        chdir '/';
        exec { $command[0] } @command or print "$command[0]: $!\n";
        POSIX::_exit(127);
    }
    return { name => $command[0], out => $out };
}

# Waits for its end; returns '' or the first line that it said, or its status.
sub finish {
    my ($command) = @_;
    return $command->{reason} if defined $command->{reason};
    my $out = $command->{out};
    my ($first) = grep { /\S/ } my @said = <$out>;
    return '' if close $out;
    chomp $first if defined $first;
    return $first // "$command->{name} ended with status " . ($? >> 8);
}

1;
