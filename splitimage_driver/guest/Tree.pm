# Places in the running system's tree. Work is done by bare name in the working
# directory, which is reached one real directory at a time: a symbolic link
# that a user of this system put in the way leads nowhere, not even when it is
# put there between a look and a write.
package Tree;
use strict;
use warnings;
use Fcntl qw(O_RDONLY O_DIRECTORY O_NOFOLLOW O_NONBLOCK);
use Kernel;

# The root of the tree is the process's own.
my $here;

use constant { OPEN => O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK };

# Directory and name of a path; the root's name is '.'.
sub split_path {
    my ($path) = @_;
    return $path =~ m{\A(.*)/([^/]+)\z}s ? ($1, $2) : ('', $path eq '' ? '.' : $path);
}

# Makes a directory (relative to the root) the working one. Returns '' when
# that was possible, 'absent' when it or one above it is not there, else the
# reason.
sub enter {
    my ($directory) = @_;
    return '' if defined $here && $here eq $directory;
    undef $here;
    chdir '/' or return "/: $!";
    my $walked = '';
    for my $piece (split m{/}, $directory) {
        $walked .= "/$piece";
        my $handle;
        if (!sysopen $handle, $piece, OPEN) {
            my $error = "$!";
            my $state = Kernel::state_of($piece) or return 'absent';
            return $state->{type} eq 'l' ? "$walked is a symbolic link"
                : $state->{type} ne 'd' ? "$walked is not a directory" : "$walked: $error";
        }
        chdir $handle or return "$walked: $!";
    }
    $here = $directory;
    return '';
}

# Makes the directory of a path the working one; returns the path's name in it.
# Dies with the reason where that is not possible.
sub at {
    my ($path) = @_;
    my ($directory, $name) = split_path($path);
    my $reason = enter($directory);
    return $name if $reason eq '';
    die $reason eq 'absent' ? "/$directory is not there\n" : "$reason\n";
}

# An open handle of the working directory.
sub handle {
    sysopen my $handle, '.', O_RDONLY | O_DIRECTORY or die "/$here: $!\n";
    return $handle;
}

# Forgets the working directory, which may have been moved or mounted over.
sub leave {
    undef $here;
    chdir '/';
    return;
}

1;
