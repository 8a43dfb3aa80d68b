# A file of update-alternatives that this system's user changed meanwhile: the
# program itself adds and removes the choices, and sets its links.
package Alternatives;
use strict;
use warnings;

# Returns the keys of rows that were left to the user: the choice of a mode.
# A row is the choice's file, its priority, the link, and name, link and file
# of each further link, one a line.
sub lay {
    my ($file, $rows) = @_;
    my ($name) = $file->{path} =~ m{([^/]+)\z};
    my @kept;
    for my $row (@$rows) {
        if ($row->{key} eq 'status') {
            push @kept, $row->{key};
            next;
        }
        if (!defined $row->{new}) {
            run($file, '--remove', $name, $row->{key});
            next;
        }
        my ($path, $priority, $link, @slaves) = split /\n/, $row->{new};
        my @command = ('--install', $link, $name, $path, $priority);
        while (my ($slave, $place, $target) = splice @slaves, 0, 3) {
            push @command, '--slave', $place, $slave, $target;
        }
        run($file, @command);
    }
    return @kept;
}

sub run {
    my ($file, @words) = @_;
    open my $out, '-|', 'update-alternatives', '--quiet', @words
        or die "/$file->{path}: update-alternatives: $!\n";
    my @said = <$out>;
    close $out or die "/$file->{path}: update-alternatives failed\n";
    return;
}

1;
