# What Puma serves: two processes of four threads.
require 'digest'

COUNT = lambda do
  File.open('/data/count', File::RDWR | File::CREAT) do |file|
    file.flock(File::LOCK_EX)
    number = file.read.to_i + 1
    file.rewind
    file.puts(number)
    number
  end
end

run lambda { |env|
  body =
    case env['PATH_INFO']
    when '/count' then "#{COUNT.call}\n"
    when '/digest' then "#{Digest::SHA256.hexdigest(env['rack.input'].read)}\n"
    when '/work' then Array.new(2000) { |i| (i * 7919 % 10_007).to_s }.sort.first && 'worked'
    when '/child' then `echo from a child`
    when '/file' then File.binread('/app/server')
    else 'hello'
    end
  [200, { 'content-type' => 'text/plain', 'content-length' => body.bytesize.to_s }, [body]]
}
