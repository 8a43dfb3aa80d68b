# Processes that take numbers from one queue, a pipe. What they say comes back
# through another, one line a message. A worker that dies takes nothing with it
# but the number that it had.
package Workers;
use strict;
use warnings;
use Errno qw(EINTR EAGAIN);
use Fcntl qw(F_GETFL F_SETFL O_NONBLOCK);
use POSIX qw(WNOHANG);
use Kernel;

my $RECORD = 8;    # bytes of a number in the queue
my $MESSAGE = 900; # bytes of a message: less than a pipe writes at once

# Starts $count workers; $work is called in one of them with each number, and
# dies where it fails.
sub start {
    my ($class, $count, $work) = @_;
    pipe(my $taken, my $queue) or die "pipe: $!\n";
    pipe(my $heard, my $said) or die "pipe: $!\n";
    my $self = bless { queue => $queue, heard => $heard, said => $said, unsent => '', text => '',
                       open => {}, has => {}, beside => {}, messages => [] }, $class;
    for (1 .. $count) {
        $self->child(sub {
            close $queue;
            while (!$main::stopping) {
                my $record;
                my $read = sysread $taken, $record, $RECORD;
                next if !defined $read && $! == EINTR;
                last unless $read;
                my $number = $record + 0;
                $self->say('start', $number);
                my $done = eval { $work->($number); 1 };
                my $reason = $@;
                last if !$done && $main::stopping;
                $done ? $self->say('done', $number) : $self->say('fail', $number, $reason);
            }
        });
    }
    close $taken;
    fcntl $queue, F_SETFL, fcntl($queue, F_GETFL, 0) | O_NONBLOCK;
    return $self;
}

# Runs code beside the workers; what it says comes with the other messages.
# Should it be killed, that is the message [group, $group, reason].
sub aside {
    my ($self, $group, $code) = @_;
    my $child = $self->child(sub { close $self->{queue}; $code->() });
    delete $self->{has}{$child};
    $self->{beside}{$child} = $group;
    return;
}

sub child {
    my ($self, $code) = @_;
    my $child = fork // die "fork: $!\n";
    if (!$child) {
        Kernel::die_with_parent();
        close $self->{heard};
        eval { $code->(); 1 } or print STDERR "layout: $@";
        POSIX::_exit(0);
    }
    $self->{has}{$child} = '';
    return $child;
}

# Says something to the parent.
sub say {
    my ($self, @words) = @_;
    s/[\t\n]+/ /g, s/ +\z// for @words;
    syswrite $self->{said}, substr(join("\t", $$, @words), 0, $MESSAGE) . "\n";
    return;
}

# Puts numbers into the queue.
sub feed {
    my ($self, @numbers) = @_;
    $self->{open}{$_} = 1 for @numbers;
    $self->{unsent} .= sprintf "%${RECORD}d", $_ for @numbers;
    return;
}

# The next message: [done, number], [fail, number, reason], or what code beside
# has said. undef when every number is answered and ($aside) nothing runs
# beside, or when all workers ended because they were to stop.
sub next {
    my ($self, $aside) = @_;
    while (1) {
        if (my $message = shift @{ $self->{messages} }) {
            my ($pid, $word, $number, @rest) = @$message;
            if ($word eq 'start') { $self->{has}{$pid} = $number }
            elsif ($word eq 'ended') {
                my $group = delete $self->{beside}{$pid};
                my $had = delete $self->{has}{$pid} // '';
                next if $main::stopping;
                return ['group', $group, killed($number)] if defined $group && $number;
                return ['fail', $had, killed($number)]
                    if $had ne '' && delete $self->{open}{$had};
            }
            elsif ($word ne 'done' && $word ne 'fail') { return [$word, $number, @rest] }
            elsif (delete $self->{open}{$number}) {
                $self->{has}{$pid} = '';
                return [$word, $number, @rest];
            }
            next;
        }
        return undef if $main::stopping && !%{ $self->{has} };
        return undef if !%{ $self->{open} } && !($aside && %{ $self->{beside} });
        if (!%{ $self->{has} } && %{ $self->{open} }) {
            my ($number) = sort { $a <=> $b } keys %{ $self->{open} };
            delete $self->{open}{$number};
            return ['fail', $number, 'no process is left to lay it'];
        }
        $self->send;
        $self->listen(0.5);
        $self->bury;
    }
}

sub killed {
    my ($status) = @_;
    return $status & 127 ? 'its process was killed by signal ' . ($status & 127)
        : 'its process ended with status ' . ($status >> 8);
}

# Tells all to stop: workers do after what they are at.
sub stop {
    my ($self) = @_;
    kill TERM => keys %{ $self->{has} };
    return;
}

# Ends all processes at once.
sub abandon {
    my ($self) = @_;
    my @children = (keys %{ $self->{has} }, keys %{ $self->{beside} });
    kill KILL => @children;
    waitpid $_, 0 for @children;
    return;
}

# Ends the queue: workers that are done end.
sub finish {
    my ($self) = @_;
    close $self->{queue};
    waitpid $_, 0 for keys %{ $self->{has} };
    return;
}

sub send {
    my ($self) = @_;
    while ($self->{unsent} ne '') {
        my $wrote = syswrite $self->{queue}, $self->{unsent}, 512 * $RECORD;
        return unless $wrote;
        substr $self->{unsent}, 0, $wrote, '';
    }
    return;
}

# Reads what was said, and waits for it at most so many seconds.
sub listen {
    my ($self, $seconds) = @_;
    my $in = '';
    vec($in, fileno $self->{heard}, 1) = 1;
    while ((select my $ready = $in, undef, undef, $seconds) > 0) {
        last unless sysread $self->{heard}, $self->{text}, 65536, length $self->{text};
        $seconds = 0;
    }
    while ($self->{text} =~ s/\A([^\n]*)\n//) {
        push @{ $self->{messages} }, [split /\t/, $1, -1];
    }
    return;
}

# Notices who ended.
sub bury {
    my ($self) = @_;
    while ((my $pid = waitpid -1, WNOHANG) > 0) {
        my $status = $?;
        next unless exists $self->{has}{$pid} || exists $self->{beside}{$pid};
        # Behind all that it has said.
        $self->listen(0);
        push @{ $self->{messages} }, [$pid, 'ended', $status];
    }
    return;
}

1;
