import java.io.*;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.*;
import java.util.*;
import javax.xml.parsers.DocumentBuilderFactory;
import org.w3c.dom.*;

/** Files of a few names and values: written beside, synchronized and renamed, so that a reader sees old or new. */
class Xml {
    static void write(Path path, Map<String, String> values) throws IOException {
        StringBuilder text = new StringBuilder("<?xml version='1.1' encoding='UTF-8'?>\n<values>\n");
        values.forEach((name, value) -> text.append("  <").append(name).append('>')
                .append(value.replace("&", "&amp;").replace("<", "&lt;")).append("</").append(name).append(">\n"));
        Path fresh = Files.createTempFile(path.getParent(), "atomic", ".tmp");
        try (FileChannel file = FileChannel.open(fresh, StandardOpenOption.WRITE)) {
            file.write(ByteBuffer.wrap(text.append("</values>\n").toString().getBytes("UTF-8")));
            file.force(true);
        }
        Files.move(fresh, path, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
    }

    static Map<String, String> read(Path path) throws Exception {
        Map<String, String> values = new LinkedHashMap<>();
        NodeList nodes;
        try (InputStream in = new BufferedInputStream(Files.newInputStream(path))) {
            nodes = DocumentBuilderFactory.newInstance().newDocumentBuilder().parse(in).getDocumentElement().getChildNodes();
        }
        for (int i = 0; i < nodes.getLength(); i++) {
            if (nodes.item(i) instanceof Element) values.put(nodes.item(i).getNodeName(), nodes.item(i).getTextContent());
        }
        return values;
    }
}
