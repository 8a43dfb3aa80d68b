# What follows when the files of a group of parts are complete.
package Services;
use strict;
use warnings;
use POSIX ();

# Where no systemd runs (a chroot), nothing is started.
sub running { return -d '/run/systemd/system' }

# Makes a group's software known to the system and starts its units. $says is
# called with (unit, 'started' or 'failed', reason). Dies where the system
# itself cannot go on.
sub start {
    my ($group, $libraries, $says) = @_;
    run('ldconfig') if $libraries;
    return unless running();
    run('systemctl', 'daemon-reload') if @{ $group->{units} };
    run('systemd-tmpfiles', '--create', map { "/$_" } @{ $group->{tmpfiles} })
        if @{ $group->{tmpfiles} };
    for my $unit (@{ $group->{units} }) {
        my ($action, $name) = @$unit;
        next if $action eq 'stop';
        my $reason = run('systemctl', $action, $name);
        $says->($name, $reason eq '' ? 'started' : 'failed', $reason);
    }
    return;
}

# Stops the units that a plan stops.
sub stop {
    my ($groups) = @_;
    return unless running();
    for my $unit (map { @{ $_->{units} } } @$groups) {
        run('systemctl', 'stop', $unit->[1]) if $unit->[0] eq 'stop';
    }
    return;
}

# Runs a command; returns '' or the first line that it said, or its status.
sub run {
    my (@command) = @_;
    my $child = open my $out, '-|';
    return "$command[0]: $!" unless defined $child;
    if (!$child) {
        open STDIN, '<', '/dev/null';
        open STDERR, '>&', \*STDOUT;
        chdir '/';
        exec { $command[0] } @command or print "$command[0]: $!\n";
        POSIX::_exit(127);
    }
    my ($first) = grep { /\S/ } my @said = <$out>;
    return '' if close $out;
    chomp $first if defined $first;
    return $first // "$command[0] ended with status " . ($? >> 8);
}

1;
