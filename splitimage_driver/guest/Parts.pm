# The parts of a plan: what belongs to which, and which have failed.
package Parts;
use strict;
use warnings;

sub new {
    my ($class, $plan, $report) = @_;
    return bless { plan => $plan, report => $report, failed => {} }, $class;
}

# Numbers of the parts that something belongs to: all where it names none.
sub of {
    my ($self, $thing) = @_;
    return @{ $thing->{parts} } ? @{ $thing->{parts} } : $self->all;
}

sub all {
    my ($self) = @_;
    return sort { $a <=> $b } keys %{ $self->{plan}{parts} };
}

# Chunks that it needs: all that name one of its parts, or none.
sub chunks_of {
    my ($self, $thing) = @_;
    my %parts = map { ($_ => 1) } $self->of($thing);
    return grep { !@{ $_->{parts} } || grep { $parts{$_} } @{ $_->{parts} } }
        @{ $self->{plan}{chunks} };
}

# Whether it belongs to a part that has not failed.
sub wanted {
    my ($self, $thing) = @_;
    my @parts = $self->of($thing);
    return !@parts || grep { !$self->{failed}{$_} } @parts;
}

# Whether none of its parts has failed.
sub sound {
    my ($self, $thing) = @_;
    return !grep { $self->{failed}{$_} } $self->of($thing);
}

# Fails all parts of a thing, with the reason.
sub fail {
    my ($self, $thing, $reason) = @_;
    $reason =~ s/\s+\z//;
    my $names = $self->{plan}{parts};
    # A plan without parts can fail, too.
    my %named = map { ($_ => $names->{$_} // "part $_") } $self->of($thing);
    %named = (plan => 'plan') unless %named;
    for my $number (sort keys %named) {
        next if $self->{failed}{$number}++;
        $self->{report}->part($named{$number}, 'failed', $reason);
    }
    return;
}

sub any_failed { my ($self) = @_; return %{ $self->{failed} } ? 1 : 0 }

1;
