# Carries out one plan: shared files' rows, directories, chunks in parallel,
# the services of each group of parts as soon as it is complete, times.
package Layout;
use strict;
use warnings;
use Files;
use Journal;
use Kernel;
use Locks;
use Objects;
use Parts;
use Plan;
use Report;
use Room;
use Rows;
use Services;
use Shared;
use Tree;
use Workers;

# id of the plan; disks: Disks; streams: number of workers; console: whether
# reports go to it.
sub new {
    my ($class, %self) = @_;
    my $self = bless \%self, $class;
    $self->{place} = $self->{disks}->mount("si-plan-$self->{id}", "$self->{id}-plan", undef);
    $self->{plan} = Plan::load("$self->{place}/plan");
    die "the disk of plan $self->{id} has another plan\n" if $self->{plan}{id} ne $self->{id};
    $self->{group_failed} = {};    # of which a unit did not start
    $self->{report} = Report->new($self->{plan}, $self->{console});
    $self->{journal} = Journal->open_for($self->{id});
    $self->{parts} = Parts->new($self->{plan}, $self->{report});
    $self->{shared} = Shared->new(plan => $self->{plan}, journal => $self->{journal},
                                  parts => $self->{parts}, contents => "$self->{place}/contents");
    $self->{files} = Files->new(
        id => $self->{id}, policy => $self->{plan}{policy}, journal => $self->{journal},
        stopped => sub { $main::stopping }, sources => sub { $self->source($_[0]) });
    return $self;
}

# Directory where the disk of that number is mounted ('' : the plan's own).
sub source {
    my ($self, $number) = @_;
    return $self->{place} if $number eq '';
    my $found = $self->{sources}{$number} // die "its disk $number is not in the plan\n";
    die $found->{reason} if defined $found->{reason};
    return $found->{place};
}

# Does all that is left to do. Returns complete, failed, or stopped.
sub carry_out {
    my ($self) = @_;
    my ($plan, $journal, $report) = @$self{qw(plan journal report)};
    if ($journal->{ended} eq 'complete') {
        $report->{done} = $report->{total};
        $report->end('complete', [$journal->kept]);
        return 'complete';
    }
    my $again = $journal->{begun};
    $journal->add(['begin']);
    my $left = 0;
    $left += $_->{bytes} for grep { !$journal->done($_->{number}) } @{ $plan->{chunks} };
    $report->begin($plan->{total} - $left);
    $self->sweep if $again;
    if ($plan->{policy} eq 'refuse' && !%{ $journal->{w} } && (my @foreign = $self->foreign)) {
        $self->{parts}->fail({ parts => [] }, 'refused: files were changed here');
        return $self->end(@foreign);
    }
    Services::stop($plan->{groups});
    $self->attach;
    $self->check_room;
    $self->{shared}->phase('early', sub { Locks::accounts(@_) });
    $self->directories;
    $self->chunks;
    return 'stopped' if $main::stopping;
    $self->{shared}->phase('late', sub { Locks::packages(@_) });
    return 'stopped' if $main::stopping;
    $self->times;
    return $self->end;
}

# Removes what a killed attempt left beside its places.
sub sweep {
    my ($self) = @_;
    for my $chunk (grep { !$self->{journal}->done($_->{number}) } @{ $self->{plan}{chunks} }) {
        $self->{files}->sweep($chunk);
    }
    for my $number (0 .. $#{ $self->{plan}{dirs} }) {
        my ($directory) = Tree::split_path($self->{plan}{dirs}[$number]{path});
        rmdir $self->{files}->temporary('dir', $number) if Tree::enter($directory) eq '';
    }
    $self->{shared}->sweep;
    return;
}

# Paths that this system's user changed.
sub foreign {
    my ($self) = @_;
    my @found = map { $self->{files}->foreign($_) } @{ $self->{plan}{chunks} };
    push @found, map { $_->{path} } grep { Rows::foreign($_) } @{ $self->{plan}{rows} };
    Tree::leave();
    return @found;
}

# Mounts the disks of all chunks that are left; those that come with the plan's
# may take a moment to be seen.
sub attach {
    my ($self) = @_;
    my ($plan, $disks) = @$self{qw(plan disks)};
    my %wanted = map { ($_->{disk} => 1) }
        grep { $_->{disk} ne '' && !$self->{journal}->done($_->{number}) } @{ $plan->{chunks} };
    my @awaited = grep { defined } @{ $plan->{disks} }{ keys %wanted };
    my $until = time + ($disks->{directory} ? 0 : 20);
    while (time < $until && !$main::stopping) {
        my $there = $disks->all;
        last unless grep { !$there->{ $_->{serial} } } @awaited;
        select undef, undef, undef, 0.5;
    }
    for my $number (sort keys %wanted) {
        my $disk = $plan->{disks}{$number} // next;
        my $place = eval { $disks->mount($disk->{serial}, "$self->{id}-$number", $disk->{size}) };
        $self->{sources}{$number} = defined $place ? { place => $place } : { reason => $@ };
    }
    return;
}

# Fails the parts of groups that do not fit, unless a group that fits has them.
sub check_room {
    my ($self) = @_;
    my (%taken, %fits, %misfits, %free);
    for my $group (@{ $self->{plan}{groups} }) {
        my @new = grep { !$taken{ $_->{number} } && !$self->{journal}->done($_->{number}) }
            $self->{parts}->chunks_of($group);
        my $reason = Room::take(\@new, \%free);
        if ($reason eq '') {
            $taken{ $_->{number} } = 1 for @new;
            $fits{$_} = 1 for $self->{parts}->of($group);
        }
        else { $misfits{$_} //= $reason for $self->{parts}->of($group) }
    }
    $self->{parts}->fail({ parts => [$_] }, $misfits{$_})
        for grep { !$fits{$_} } sort keys %misfits;
    return;
}

# Makes the directories, outermost first as the plan has them.
sub directories {
    my ($self) = @_;
    my ($journal, $dirs) = ($self->{journal}, $self->{plan}{dirs});
    my (@facts, %around);
    for my $number (0 .. $#$dirs) {
        my $op = $dirs->[$number];
        next if $journal->{m}{ $op->{path} } || !$self->{parts}->wanted($op);
        my $what = eval {
            Objects::make_directory($op, $self->{files}, $self->{files}->temporary('dir', $number));
        };
        if (!defined $what) { $self->{parts}->fail($op, $@); next }
        push @facts, ['m', $op->{path}], $what eq 'keep' ? ['k', $op->{path}] : ();
        my $state = Kernel::state_of('.');
        $around{ $state->{dev} } //= Tree::handle() if $state;
    }
    Kernel::sync_all(values %around);
    $journal->add(@facts);
    Tree::leave();
    return;
}

# Lays the chunks. Those that put something in a directory's place come after
# the removals of the others.
sub chunks {
    my ($self) = @_;
    my ($plan, $journal) = @$self{qw(plan journal)};
    my %by_number = map { ($_->{number} => $_) } @{ $plan->{chunks} };
    my @open = grep { !$journal->done($_->{number}) } @{ $plan->{chunks} };
    my @left = grep { $self->{parts}->wanted($_) } @open;
    $self->{open} = { map { ($_->{number} => 1) } @open };
    my $workers = $self->{workers} = Workers->start(
        $self->{streams}, sub { $self->{files}->lay($by_number{ $_[0] }) });
    $self->ready;
    my @second = grep { grep { replaces_directory($_) } @{ $_->{ops} } } @left;
    my @first = grep { my $one = $_; !grep { $_ == $one } @second } @left;
    for my $wave (\@first, \@second) {
        $workers->feed(map { $_->{number} } @$wave);
        while (my $message = $workers->next(0)) { $self->heard($message, \%by_number) }
        $self->gone_directories($wave == \@second) unless $main::stopping;
    }
    while (!$main::stopping && (my $message = $workers->next(1))) {
        $self->heard($message, \%by_number);
    }
    $workers->finish;
    return;
}

sub replaces_directory {
    my ($op) = @_;
    return $op->{op} ne 'gone' && grep { $_->{expected} && $_->{expected}{type} eq 'd' }
        $op, @{ $op->{names} // [] };
}

sub heard {
    my ($self, $message, $chunks) = @_;
    my ($word, $thing, @rest) = @$message;
    if ($word eq 'done') {
        delete $self->{open}{$thing};
        $self->{report}->progress($chunks->{$thing}{bytes});
        $self->ready;
    }
    elsif ($word eq 'fail') {
        $self->{parts}->fail($chunks->{$thing}, $rest[0]);
        $self->{files}->sweep($chunks->{$thing});
        Tree::leave();
    }
    elsif ($word eq 'unit') {
        my ($state, $reason) = @rest;
        $self->{report}->unit($thing, $state, $reason);
        $self->{group_failed}{$rest[2]} = 1 if $state ne 'started';
    }
    elsif ($word eq 'group') {
        if ($rest[0] ne '') {
            my ($group) = grep { $_->{number} eq $thing } @{ $self->{plan}{groups} };
            $self->{parts}->fail($group, $rest[0]);
        }
        elsif (!$self->{group_failed}{$thing}) { $self->{journal}->add(['g', $thing]) }
    }
    return;
}

# Reports parts, and starts the services of groups, whose chunks are all done.
sub ready {
    my ($self) = @_;
    my $plan = $self->{plan};
    for my $number ($self->{parts}->all) {
        my $part = { parts => [$number] };
        next if $self->{told}{$number} || !$self->{parts}->sound($part);
        next if grep { $self->{open}{ $_->{number} } } $self->{parts}->chunks_of($part);
        $self->{told}{$number} = 1;
        $self->{report}->part($plan->{parts}{$number}, 'complete', '');
    }
    for my $group (@{ $plan->{groups} }) {
        my $number = $group->{number};
        next if $self->{started}{$number} || $self->{journal}{g}{$number};
        next unless $self->{parts}->sound($group);
        next if grep { !$self->{told}{$_} } $self->{parts}->of($group);
        $self->{started}{$number} = 1;
        my $libraries = grep { $_->{path} =~ m{\.so(?:\.|\z)|\Aetc/ld\.so\.conf} }
            map { @{ $_->{ops} } } $self->{parts}->chunks_of($group);
        my $workers = $self->{workers};
        $workers->aside($number, sub {
            Services::start($group, $libraries, sub { $workers->say('unit', @_, $number) });
            $workers->say('group', $number, '');
        });
    }
    return;
}

# Removes the directories that go, deepest first, when they are empty. At the
# last time, what is in one that stays is the user's.
sub gone_directories {
    my ($self, $last) = @_;
    my $journal = $self->{journal};
    my @gone = grep { $self->{parts}->wanted($_) } @{ $self->{plan}{gone} };
    my @kept;
    for my $op (sort { $b->{path} cmp $a->{path} } @gone) {
        my $what = eval { Objects::remove_directory($op, $self->{files}) };
        if (!defined $what) { $self->{parts}->fail($op, $@) }
        elsif ($what eq 'keep' && $last && $self->{parts}->sound($op)) {
            push @kept, ['k', $op->{path}];
        }
    }
    $journal->add(@kept);
    Tree::leave();
    return;
}

# Gives directories their times, which the work in them has changed.
sub times {
    my ($self) = @_;
    for my $time (@{ $self->{plan}{times} }) {
        my ($path, $mtime) = @$time;
        my ($directory, $name) = Tree::split_path($path);
        next unless Tree::enter($directory) eq '';
        my $state = Kernel::state_of($name);
        Kernel::set_mtime($name, $mtime) if $state && $state->{type} eq 'd';
    }
    Tree::leave();
    return;
}

# Ends the attempt. @kept: paths that were kept, besides those of the journal.
sub end {
    my ($self, @kept) = @_;
    my $state = $self->{parts}->any_failed || %{ $self->{group_failed} } ? 'failed' : 'complete';
    $self->{journal}->read_again;
    $self->{journal}->add(['end', $state]);
    $self->{report}->end($state, [sort @kept, $self->{journal}->kept]);
    return $state;
}

1;
