# The locks of those who own the shared files: fcntl locks on files that they
# agree about. Held as long as the returned handles are.
package Locks;
use strict;
use warnings;
use Errno qw(EAGAIN EACCES);
use Fcntl qw(O_RDWR O_CREAT O_NOFOLLOW);
use Kernel;

my $ACCOUNTS = '/etc/.pwd.lock';
my @PACKAGES = ('/var/lib/dpkg/lock-frontend', '/var/lib/dpkg/lock');

# The lock of /etc/passwd and its like (lckpwdf), waited for as long as others
# wait for it several times over.
sub accounts { return take(60, $_[0], 0600, $ACCOUNTS) }

# dpkg's locks, in its order: an apt that runs may take minutes.
sub packages { return take(600, $_[0], 0640, grep { -d '/var/lib/dpkg' } @PACKAGES) }

# Takes all of them, or dies after $patience seconds. $stopped: code that says
# whether to stop waiting.
sub take {
    my ($patience, $stopped, $mode, @paths) = @_;
    my $until = time + $patience;
    my @held;
    for my $path (@paths) {
        sysopen my $handle, $path, O_RDWR | O_CREAT | O_NOFOLLOW, $mode or die "$path: $!\n";
        until (Kernel::lock_now($handle)) {
            die "$path: $!\n" unless $! == EAGAIN || $! == EACCES;
            die "stopped\n" if $stopped->();
            die "$path is held by another process\n" if time >= $until;
            select undef, undef, undef, 0.2;
        }
        push @held, $handle;
    }
    return \@held;
}

1;
