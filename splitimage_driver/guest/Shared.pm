# The shared files of a plan, in two phases: accounts before all other files,
# the package manager's databases after them.
package Shared;
use strict;
use warnings;
use Rows;
use Tree;

# plan, journal, parts; contents: directory of the plan's contents.
sub new {
    my ($class, %self) = @_;
    return bless \%self, $class;
}

# Removes what a killed attempt left beside its places.
sub sweep {
    my ($self) = @_;
    for my $number (0 .. $#{ $self->{plan}{rows} }) {
        my ($directory) = Tree::split_path($self->{plan}{rows}[$number]{path});
        unlink $self->temporary($number) if Tree::enter($directory) eq '';
    }
    Tree::leave();
    return;
}

sub temporary { my ($self, $number) = @_; return ".splitimage-$self->{plan}{id}-rows.$number" }

# Applies the rows of a phase under the lock that $lock takes.
sub phase {
    my ($self, $phase, $lock) = @_;
    my ($plan, $journal) = @$self{qw(plan journal)};
    my @numbers = grep { $plan->{rows}[$_]{phase} eq $phase } 0 .. $#{ $plan->{rows} };
    my @left = grep { $self->pending($_, $phase) } @numbers;
    return unless @left;
    my $held = eval { $lock->(sub { $main::stopping }) };
    if (!defined $held) {
        my $reason = $@;
        return if $main::stopping;
        for my $file (@{ $plan->{rows} }[@left]) {
            $self->{parts}->fail($_, $reason) for @{ $file->{rows} };
        }
        return;
    }
    if ($phase eq 'early') { $self->clashes(@left) }
    for my $number (@left) {
        my $file = $plan->{rows}[$number];
        my @rows = $self->left($number, $phase);
        my @kept = eval {
            Rows::lay($file, [@{ $file->{rows} }[@rows]], $self->{contents},
                      $self->temporary($number), $plan->{policy} eq 'force');
        };
        if ($@) {
            my $reason = $@;
            $self->{parts}->fail($_, $reason) for @{ $file->{rows} }[@rows];
            next;
        }
        $journal->add((map { ['r', $number, $_] } @rows ? @rows : 0), @kept ? ['k', $file->{path}] : ());
        print STDERR "layout: /$file->{path}: left as it is: $_\n" for @kept;
    }
    Tree::leave();
    return;
}

# Whether something is left to do about a file. One without rows, whose records
# only change places, belongs to all parts.
sub pending {
    my ($self, $number, $phase) = @_;
    return scalar $self->left($number, $phase) if @{ $self->{plan}{rows}[$number]{rows} };
    return !$self->{journal}{r}{"$number 0"} && $self->{parts}->sound({ parts => [] });
}

# Numbers of a file's rows that are not done and whose time has come: early
# ones for any part that is wanted, late ones when all their parts are complete.
sub left {
    my ($self, $number, $phase) = @_;
    my $rows = $self->{plan}{rows}[$number]{rows};
    return grep {
        my $row = $rows->[$_];
        !$self->{journal}{r}{"$number $_"} && ($phase eq 'early' ? $self->{parts}->wanted($row)
            : $self->{parts}->sound($row));
    } 0 .. $#$rows;
}

# Fails the parts whose new accounts have a number, or a name, that this
# system's own accounts have.
sub clashes {
    my ($self, @numbers) = @_;
    for my $number (@numbers) {
        my $file = $self->{plan}{rows}[$number];
        next unless $file->{path} =~ m{\Aetc/(?:passwd|group)\z};
        my $records = eval { Rows::parse($file, Rows::content($file->{path}) // '') } // next;
        for my $row (@{ $file->{rows} }[$self->left($number, 'early')]) {
            my $reason = Rows::clash($file, $row, $records);
            $self->{parts}->fail($row, $reason) if $reason ne '';
        }
    }
    return;
}

1;
