# What the host and this system's administrator are told: JSON lines on the
# console and in /run/splitimage/report, the state in status.json.
package Report;
use strict;
use warnings;
use Fcntl qw(O_WRONLY O_NONBLOCK O_NOCTTY);
use IO::Handle;

my $REPORT = '/run/splitimage/report';
my $STATUS = '/var/lib/splitimage/status.json';
my ($REASON, $KEPT, $LINE) = (160, 20, 1800);

# plan; console: whether the lines go there too.
sub new {
    my ($class, $plan, $console) = @_;
    my $self = bless { id => $plan->{id}, mode => $plan->{mode}, total => $plan->{total} + 0,
                       done => 0, told => 0, console => $console, state => 'laying', parts => {},
                       units => {}, failed => {}, kept => [] }, $class;
    return $self;
}

# A JSON value: of a hash, an array, a reference to a number, or a string.
# Pure ASCII; bytes that are no UTF-8 are shown as \xNN.
sub json {
    my ($value) = @_;
    return '{' . join(',', map { json("$_") . ':' . json($value->{$_}) } sort keys %$value) . '}'
        if ref $value eq 'HASH';
    return '[' . join(',', map { json($_) } @$value) . ']' if ref $value eq 'ARRAY';
    return $$value + 0 if ref $value;
    my $text = $value;
    $text =~ s/([\x80-\xff])/sprintf '\\x%02x', ord $1/ge unless utf8::decode($text);
    $text =~ s/(["\\])/\\$1/g;
    $text =~ s/([^\x20-\x7e])/escape(ord $1)/ge;
    return "\"$text\"";
}

sub escape {
    my ($code) = @_;
    return sprintf '\\u%04x', $code if $code < 0x10000;
    $code -= 0x10000;
    return sprintf '\\u%04x\\u%04x', 0xd800 + ($code >> 10), 0xdc00 + ($code & 0x3ff);
}

# One event; fields in the order given.
sub event {
    my ($self, $event, @fields) = @_;
    my @pairs = (splitimage => $self->{id}, event => $event, @fields);
    my $line = '';
    while (my ($name, $value) = splice @pairs, 0, 2) {
        $line .= ($line eq '' ? '{' : ',') . json($name) . ':' . json($value);
    }
    $self->write("$line}");
    return;
}

sub write {
    my ($self, $line) = @_;
    if (open my $out, '>>', $REPORT) { syswrite $out, "$line\n" }
    if ($self->{console} && sysopen my $console, '/dev/console', O_WRONLY | O_NONBLOCK | O_NOCTTY) {
        # A line of its own, whatever stands there.
        syswrite $console, "\n$line\n";
    }
    else { syswrite STDOUT, "$line\n" }
    return;
}

sub begin {
    my ($self, $done) = @_;
    @$self{qw(done told)} = ($done, $done);
    $self->event('begin', bytes => \$self->{total});
    $self->save;
    return;
}

# So many bytes more are laid: told at every twentieth of all.
sub progress {
    my ($self, $bytes) = @_;
    $self->{done} += $bytes;
    return if ($self->{done} - $self->{told}) * 20 < $self->{total};
    $self->{told} = $self->{done};
    $self->event('progress', bytes => \$self->{done}, total => \$self->{total});
    $self->save;
    return;
}

sub part { my ($self, @told) = @_; return $self->became('part', @told) }

sub unit { my ($self, @told) = @_; return $self->became('unit', @told) }

# kind: part or unit; reason: '' where there is none to be told.
sub became {
    my ($self, $kind, $name, $state, $reason) = @_;
    $reason = substr $reason, 0, $REASON;
    my @why = $reason ne '' ? (reason => $reason) : ();
    $self->{"${kind}s"}{$name} = { state => $state, @why };
    if ($state eq 'failed') { $self->{failed}{$name} = $reason }
    else { delete $self->{failed}{$name} }
    $self->event($kind, $kind => $name, state => $state, @why);
    $self->save;
    return;
}

# The last word of an attempt, kept for repeating.
sub end {
    my ($self, $state, $kept) = @_;
    @$self{qw(state kept)} = ($state, $kept);
    $self->save;
    # Short enough that one write reaches the console whole.
    my (%failed, @kept);
    my $length = 200;
    for my $name (sort keys %{ $self->{failed} }) {
        $length += 2 * length json($name . $self->{failed}{$name});
        $failed{$name} = $self->{failed}{$name} if $length < $LINE;
    }
    for my $path (map { "/$_" } @$kept) {
        last if @kept == $KEPT || ($length += 3 + length json($path)) > $LINE;
        push @kept, $path;
    }
    $self->{last} = [end => state => $state, failed => \%failed, kept => \@kept,
                     kept_count => \scalar @$kept];
    $self->again;
    return;
}

sub again {
    my ($self) = @_;
    $self->event(@{ $self->{last} });
    return;
}

# Replaces the status file; a reader never sees half of it.
sub save {
    my ($self) = @_;
    my $kept = $self->{kept};
    my $status = json({ splitimage => $self->{id}, mode => $self->{mode}, state => $self->{state},
                        done => \$self->{done}, total => \$self->{total},
                        parts => $self->{parts}, units => $self->{units},
                        failed => $self->{failed}, kept => [map { "/$_" } @$kept] });
    umask 022;
    open my $out, '>', "$STATUS.new" or return;
    print {$out} "$status\n";
    $out->flush;
    $out->sync;
    close $out and rename "$STATUS.new", $STATUS;
    return;
}

1;
