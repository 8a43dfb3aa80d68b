# The journal of a plan, on this system's own disk. It says what the layout
# wrote, so that after a power cut that is checked and done again, and all else
# is known to be the user's. One fact a line:
#
#   begin             an attempt begins
#   w PATH            the layout is about to put its version there
#   k PATH            what is there is the user's and stays
#   d CHUNK           a chunk is done, and on the disk
#   m PATH            a directory is made
#   r FILE ROW        a row of a shared file is done (FILE, ROW: numbers)
#   g GROUP           what follows the completion of a group was done
#   end STATE         an attempt ended: complete or failed
package Journal;
use strict;
use warnings;
use Fcntl qw(O_RDWR O_CREAT O_APPEND O_NOFOLLOW);
use IO::Handle;
use Kernel;
use Plan;

my $DIRECTORY = '/var/lib/splitimage';

sub open_for {
    my ($class, $id) = @_;
    mkdir $DIRECTORY, 0755 unless -d $DIRECTORY;
    sysopen my $handle, "$DIRECTORY/journal-$id", O_RDWR | O_CREAT | O_APPEND | O_NOFOLLOW, 0600
        or die "$DIRECTORY/journal-$id: $!\n";
    my $state = Kernel::state_of($DIRECTORY) or die "$DIRECTORY: $!\n";
    my $self = bless { handle => $handle, device => $state->{dev} }, $class;
    $self->read_again;
    # A power cut may have left half a line.
    syswrite $handle, "\n" unless $self->{whole};
    if (open my $above, '<', $DIRECTORY) { $above->sync }
    return $self;
}

# Reads what all processes have written.
sub read_again {
    my ($self) = @_;
    @$self{qw(w k d m r g)} = ({}, {}, {}, {}, {}, {});
    @$self{qw(begun ended whole)} = (0, '', 1);
    sysseek $self->{handle}, 0, 0;
    my ($content, $read) = ('', 1);
    $read = sysread $self->{handle}, $content, 1 << 20, length $content while $read;
    $self->{whole} = $content eq '' || substr($content, -1) eq "\n";
    for my $line (split /\n/, $self->{whole} ? $content : $content =~ s/[^\n]*\z//r) {
        if ($line =~ /\A([wkm]) (.*)\z/) { $self->{$1}{ Plan::decode($2) } = 1 }
        elsif ($line =~ /\A([dg]) (\d+)\z/ || $line =~ /\A(r) (\d+ \d+)\z/) { $self->{$1}{$2} = 1 }
        elsif ($line eq 'begin') { @$self{qw(begun ended)} = (1, '') }
        elsif ($line =~ /\Aend (complete|failed)\z/) { $self->{ended} = $1 }
    }
    return;
}

# Adds facts, [word, thing]; they are on the disk when this returns.
sub add {
    my ($self, @facts) = @_;
    return unless @facts;
    $self->note(@facts);
    $self->{handle}->sync or die "$DIRECTORY: the journal cannot be written: $!\n";
    return;
}

# Adds facts that are on the disk only when its file system was synced.
sub note {
    my ($self, @facts) = @_;
    my $lines = '';
    for my $fact (@facts) {
        my ($word, @things) = @$fact;
        $lines .= join(' ', $word, map { Plan::encode($_) } @things) . "\n";
        $self->{$word}{ join ' ', @things } = 1 if $word =~ /\A[wkdmrg]\z/;
    }
    # One write: that of another process comes before it or behind it.
    my $written = syswrite $self->{handle}, $lines;
    die "$DIRECTORY: the journal cannot be written: $!\n"
        unless defined $written && $written == length $lines;
    return;
}

# Whether a path may hold what a power cut left of the layout's own version.
sub ours { my ($self, $path) = @_; return $self->{w}{$path} && !$self->{k}{$path} }

sub done { my ($self, $chunk) = @_; return $self->{d}{$chunk} }

sub kept { my ($self) = @_; return sort keys %{ $self->{k} } }

1;
