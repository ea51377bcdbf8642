# What Starman serves: processes that are forked beforehand.
use strict;
use warnings;
use Digest::SHA;
use Fcntl qw(:flock :seek O_RDWR O_CREAT);

sub count {
    sysopen(my $file, '/data/count', O_RDWR | O_CREAT) or die "count: $!";
    flock($file, LOCK_EX) or die "flock: $!";
    my $number = (<$file> // 0) + 1;
    seek($file, 0, SEEK_SET);
    print $file "$number\n";
    close($file) or die "close: $!";
    return "$number\n";
}

sub digest {
    my $input = shift->{'psgi.input'};
    my $digest = Digest::SHA->new(256);
    while ($input->read(my $part, 65536)) { $digest->add($part) }
    return $digest->hexdigest . "\n";
}

sub work {
    my @words = sort map { $_ * 7919 % 10007 } 1 .. 2000;
    return 'worked';
}

sub file {
    open(my $file, '<:raw', '/app/server') or die "open: $!";
    local $/;
    return scalar <$file>;
}

my %pages = (
    '/count' => \&count, '/digest' => \&digest, '/work' => \&work, '/file' => \&file,
    '/child' => sub { return scalar `echo from a child` },
);
sub {
    my $environment = shift;
    my $page = $pages{$environment->{PATH_INFO}};
    my $body = $page ? $page->($environment) : 'hello';
    return [200, ['Content-Type' => 'text/plain', 'Content-Length' => length $body], [$body]];
};
